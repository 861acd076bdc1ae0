//! Who a server runs as. PostgreSQL and PgBouncer refuse to run as root.

use std::{
    fs, io,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::Command,
};

/// Who runs a server when we are root, the first that the machine knows.
const STAND_INS: [&str; 2] = ["postgres", "nobody"];

/// The user that a server runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Whoever we are.
    Ours,
    /// Another one, because we are root.
    Other { user: u32, group: u32 },
}

impl Account {
    /// Ourselves, or as root the first of the stand-ins.
    pub(super) fn for_servers() -> io::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ours);
        }
        let users = fs::read_to_string("/etc/passwd")?;
        STAND_INS
            .iter()
            .find_map(|name| find(&users, name))
            .ok_or_else(|| {
                io::Error::other(
                    "we are root, as which no server runs, and there is no user postgres or nobody",
                )
            })
    }

    /// Gives a folder of ours to the server.
    pub(super) fn give(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Ours => Ok(()),
            Self::Other { user, group } => chown(path, Some(user), Some(group)),
        }
    }

    /// Makes a program run as this user.
    pub(super) fn run(self, command: &mut Command) {
        if let Self::Other { user, group } = self {
            command.uid(user).gid(group);
        }
    }
}

/// The user of this name in the lines of `/etc/passwd`: `name:password:uid:gid:…`.
fn find(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Account::Other { user, group })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_find_a_user_when_the_name_is_whole() {
        let users = "root:x:0:0::/root:/bin/bash\npostgres2:x:1:2::/:\n\npostgres:x:101:104:,,,:/:/bin/sh\n";
        assert_eq!(
            find(users, "postgres"),
            Some(Account::Other {
                user: 101,
                group: 104
            })
        );
        assert_eq!(find(users, "post"), None);
        assert_eq!(find("postgres:x:many:104", "postgres"), None);
    }
}
