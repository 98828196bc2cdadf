//! Scripts as children of the test, which tell what they see line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::sync::mpsc;

use super::{python, within};

/// A running script, and what it says; it is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Script {
    process: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Script {
    /// A script of `tests/interop` in an environment that an app has made already.
    pub(crate) fn python(name: &str, requirements: &str, script: &str, arguments: &[&str]) -> Self {
        let packages: Vec<_> = requirements.lines().collect();
        let environment = python::environment(name, &packages).expect("the app has it");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
        let mut command = Command::new(environment.join("bin/python"));
        command.arg(path).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("it is installed");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let (said, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The test may have heard enough.
                let _ = said.send(line);
            }
        });
        Self { process, lines }
    }

    /// The next line.
    pub(crate) async fn line(&mut self) -> String {
        within("a line", self.lines.recv()).await.expect("the script goes on")
    }

    /// Sends a line, for which the script waits.
    pub(crate) fn go_on(&mut self) {
        self.process.stdin.as_mut().expect("piped").write_all(b"\n").expect("it reads");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}
