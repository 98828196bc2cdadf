//! Virtual environments of Python with pinned packages: the real frameworks and servers that the tests compare with.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The directory of a virtual environment that holds exactly `packages` and what they need, made on first use.
///
/// None, with a line on stderr, where there is no Python or no package index; a failure where `CI` is set, since a
/// suite that skips everything looks as green as one that passes.
pub(crate) fn environment(name: &str, packages: &[&str]) -> Option<PathBuf> {
    match try_environment(name, packages) {
        Ok(directory) => Some(directory),
        Err(reason) if std::env::var_os("CI").is_some() => panic!("the environment `{name}`: {reason}"),
        Err(reason) => {
            skip(&format!("no Python environment `{name}`: {reason}"));
            None
        }
    }
}

/// Says on stderr that a test is skipped; past the test runner, which swallows what passing tests print.
pub(crate) fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// Where the environments and the servers' logs are.
pub(crate) fn interop_directory() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp has a parent");
    let directory = target.join("interop");
    fs::create_dir_all(&directory).expect("target/interop can be made");
    directory
}

fn try_environment(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let directory = interop_directory().join(name);
    let marker = directory.join("installed");
    let wanted = packages.join("\n");

    // Test binaries run side by side, and all of them but one wait here for the one that installs. The lock is the
    // system's: it ends with the process, however that ends.
    let lock = File::create(directory.with_extension("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(directory);
    }
    let _ = fs::remove_dir_all(&directory);
    run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
    let pip = directory.join("bin/python");
    run(Command::new(pip).args(["-m", "pip", "install", "--quiet", "--no-input"]).args(packages))?;
    // Last, so that what was interrupted is begun anew.
    fs::write(&marker, wanted).map_err(|error| error.to_string())?;
    Ok(directory)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
