//! Where the machine keeps the programs of a server.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Where system administrators' programs are, which is not on everybody's path.
const SYSTEM: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];
/// Where Debian keeps the programs of each PostgreSQL that is installed.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";

/// A program on the path, or where the system keeps its own.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    on(&path().chain(SYSTEM.map(PathBuf::from)).collect::<Vec<_>>(), name)
}

/// The folder with PostgreSQL's programs: that of the path's, or the newest of Debian's.
pub(super) fn postgres() -> Option<PathBuf> {
    let on_path = on(&path().collect::<Vec<_>>(), "postgres")
        // The programs beside it are beside the program itself, not beside a link to it.
        .and_then(|program| Some(program.canonicalize().ok()?.parent()?.to_owned()));
    on_path
        .into_iter()
        .chain(newest_first(Path::new(DEBIAN_POSTGRES)))
        .find(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
}

fn path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn on(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// The `bin` folders of versions, as numbers: 16 before 9.6.
fn newest_first(versions: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(Vec<u32>, PathBuf)> = fs::read_dir(versions)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().into_string().ok()?;
            let numbers = version
                .split('.')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .ok()?;
            Some((numbers, entry.path().join("bin")))
        })
        .collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_take_the_newest_when_there_are_several() {
        let versions = tempfile::tempdir().unwrap();
        for name in ["9.6", "16", "15", "common"] {
            fs::create_dir(versions.path().join(name)).unwrap();
        }
        let found = newest_first(versions.path());
        assert_eq!(
            found,
            ["16", "15", "9.6"].map(|name| versions.path().join(name).join("bin"))
        );
        assert!(newest_first(&versions.path().join("none")).is_empty());
    }

    #[test]
    fn should_find_the_first_when_a_program_is_on_the_path_twice() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [one.path().to_owned(), other.path().to_owned()];
        assert_eq!(on(&folders, "server"), None);
        fs::write(other.path().join("server"), "").unwrap();
        assert_eq!(on(&folders, "server"), Some(other.path().join("server")));
        fs::write(one.path().join("server"), "").unwrap();
        assert_eq!(on(&folders, "server"), Some(one.path().join("server")));
    }
}
