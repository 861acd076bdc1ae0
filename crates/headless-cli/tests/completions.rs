//! What the command prints for shells.

use std::process::Command;

#[test]
fn should_complete_every_command_when_a_shell_asks() {
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(env!("CARGO_BIN_EXE_headless"))
            .args(["completions", shell])
            .output()
            .unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{shell}");
        for command in ["completions", "config", "dead", "demo", "migrate", "publish"] {
            assert!(script.contains(command), "{shell} does not complete {command}");
        }
        assert!(
            !script.contains("demo-member"),
            "{shell} completes what is hidden"
        );
    }
    let unknown = Command::new(env!("CARGO_BIN_EXE_headless"))
        .args(["completions", "no-such-shell"])
        .output()
        .unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}
