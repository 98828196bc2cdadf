//! Programs of the system that tests run: the real peers of the gateway.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{python, within};

/// What a program that has ended wrote.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program called `name`. None, with a line on stderr, where there is none; a failure where `CI` is set.
pub(crate) fn find(name: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(Into::into));
    match places.map(|place| place.join(name)).find(|file| Path::new(file).is_file()) {
        Some(file) => {
            let mut command = Command::new(file);
            command.kill_on_drop(true);
            Some(command)
        }
        None => {
            assert!(std::env::var_os("CI").is_none(), "there is no `{name}`");
            python::skip(&format!("there is no `{name}`"));
            None
        }
    }
}

/// Runs `command` to its end, with `input` on its standard input.
pub(crate) async fn run(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("is piped");
    // A program that ends early reads no more.
    let _unread = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = within("a program", child.wait_with_output()).await.expect("ends");
    Output {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
