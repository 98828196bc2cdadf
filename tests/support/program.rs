//! Runs external programs: HTTP clients and proxies.

use std::process::{Command, Output, Stdio};

use tokio::io::AsyncWriteExt as _;

use super::packages::skip;
use super::within;

/// Environment variables with which the AWS SDK finds these credentials and no others: the developer's may be those of a real
/// account.
pub(crate) const AWS_ENVIRONMENT: [(&str, &str); 6] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_REGION", "eu-central-1"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
];

/// Runs `program` and returns its output. If it is not installed, calls [`skip`] and returns `None`.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            skip(&format!("cannot run {program}: {error}"));
            None
        }
    }
}

/// Runs `program`, which must succeed, and returns what it writes to stdout and then to stderr. If it is not installed,
/// calls [`skip`] and returns `None`.
pub(crate) fn successful_output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = output(program, arguments)?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    Some(text.into_owned())
}

/// Returns a command that runs `program`. If it is not installed, calls [`skip`] and returns `None`.
pub(crate) fn command(program: &str) -> Option<tokio::process::Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(Into::into));
    let Some(file) = directories.map(|directory| directory.join(program)).find(|file| file.is_file()) else {
        skip(&format!("{program} is not installed"));
        return None;
    };
    let mut command = tokio::process::Command::new(file);
    command.kill_on_drop(true);
    Some(command)
}

/// Runs `command` with `input` as its standard input. Returns whether it succeeded, and what it wrote to stdout and to
/// stderr.
pub(crate) async fn run(command: &mut tokio::process::Command, input: &str) -> (bool, String, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("is piped");
    // Fails if the program exits before it has read everything.
    let _incomplete = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = within("a program", child.wait_with_output()).await.expect("ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}
