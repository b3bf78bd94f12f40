//! Runs a test of this program again in a process of its own, with variables of its own.

use std::process::Command;

/// Names the test that a process was started for.
const MARK: &str = "HHALIGN_TEST_APART";

/// Runs one test, given by its full name, in a process of its own with these variables, and returns
/// what it printed.
///
/// # Panics
/// The test fails, or there is no test of this name.
pub fn run(test: &str, variables: &[(&str, &str)]) -> String {
    let program = std::env::current_exe().unwrap();
    let done = Command::new(program)
        .args(["--exact", test, "--show-output"])
        .env(MARK, test)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success() && said.contains("test result: ok. 1 passed"),
        "{test}:\n{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let (_, printed) = said.split_once(&format!("---- {test} stdout ----\n")).unwrap_or_default();
    printed.split("\n\nsuccesses:\n").next().unwrap_or_default().to_string()
}

/// Whether this process is the one that [`run`] started for a test.
pub fn is_child(test: &str) -> bool {
    std::env::var(MARK).is_ok_and(|mark| mark == test)
}
