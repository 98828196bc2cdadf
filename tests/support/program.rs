//! Programs of others that the tests run: clients, proxies, and senders of what no client should.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tokio::io::AsyncWriteExt as _;

use super::packages::skip;
use super::within;

/// Runs `program`. None, with a line on stderr, where it is missing; a failure where `CI` is set.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if std::env::var_os("CI").is_some() => panic!("{program}: {error}"),
        Err(error) => {
            skip(&format!("no {program}: {error}"));
            None
        }
    }
}

/// The same of a program that must succeed; what it says on both streams.
pub(crate) fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = output(program, arguments)?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    Some(said.into_owned())
}

/// `program`, to be given arguments. None, with a line on stderr, where it is missing; a failure where `CI` is set.
pub(crate) fn command(program: &str) -> Option<tokio::process::Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(Into::into));
    if let Some(file) = places.map(|place| place.join(program)).find(|file| Path::new(file).is_file()) {
        let mut command = tokio::process::Command::new(file);
        command.kill_on_drop(true);
        return Some(command);
    }
    assert!(std::env::var_os("CI").is_none(), "there is no {program}");
    skip(&format!("no {program}"));
    None
}

/// Runs `command` to its end, with `input` on its standard input; whether it succeeded, and what it wrote.
pub(crate) async fn run(command: &mut tokio::process::Command, input: &str) -> (bool, String, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("is piped");
    // A program that ends early reads no more.
    let _unread = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = within("a program", child.wait_with_output()).await.expect("ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}
