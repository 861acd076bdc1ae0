//! The folder of a server, which goes with its handle, and with a test program that is killed too.

use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::account::Account;

/// Waits for the end of the program that holds the other end of its input, then stops what still works in the folder
/// `$1` and removes it. A process is known by its working folder, so that a number which was given anew harms nobody.
const AFTER_US: &str = r#"
cat >/dev/null
sweep() {
    found=
    for process in /proc/[0-9]*; do
        case $(readlink "$process/cwd" 2>/dev/null) in
            "$1" | "$1"/*) found=1; for name in $2; do kill -"$name" "${process#/proc/}" 2>/dev/null; done ;;
        esac
    done
    [ -n "$found" ]
}
if sweep "$1" "QUIT CONT"; then
    left=50
    while [ $left -gt 0 ] && sweep "$1" ""; do sleep 0.1; left=$((left - 1)); done
    sweep "$1" KILL
fi
rm -rf -- "$1"
"#;

/// A temporary folder.
#[derive(Debug)]
pub(super) struct Folder {
    folder: Option<TempDir>,
    /// Cleans up after a program that could not do so itself: killed, exited, or with its handle in a static.
    watchman: Child,
}

impl Folder {
    /// A new folder that the account may write to.
    pub(super) fn new(name: &str, account: Account) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("headless-{name}-"))
            .tempdir()?;
        account.give(folder.path())?;
        let watchman = Command::new("/bin/sh")
            .args(["-c", AFTER_US, "headless-watchman"])
            .arg(folder.path().canonicalize()?)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Neither a Ctrl-C nor the end of the program's group reaches it.
            .process_group(0)
            .spawn()?;
        Ok(Self {
            folder: Some(folder),
            watchman,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(""), TempDir::path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let removed = self.folder.take().is_none_or(|folder| folder.close().is_ok());
        if removed {
            // There is nothing left for it to do.
            let _gone = self.watchman.kill();
        }
        // Waiting closes its input: what could not be removed is its work now.
        let _ended = self.watchman.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::{super::process::wait_until, *};

    #[test]
    fn should_be_gone_when_it_is_dropped() {
        let folder = Folder::new("test", Account::Ours).unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn should_take_its_processes_along_when_the_program_is_killed() {
        let mut folder = Folder::new("test", Account::Ours).unwrap();
        let path = folder.path().to_owned();
        // It ends by itself, should the test be wrong.
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(&path)
            .spawn()
            .unwrap();
        // What the kernel does to the pipe of a program that is killed.
        drop(folder.watchman.stdin.take());
        wait_until(Duration::from_secs(10), "the folder goes", || {
            Ok((!path.exists()).then_some(()))
        })
        .unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
