//! Directories of Node packages with pinned versions: the real frameworks that the tests compare with.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::python::{interop_directory, skip};

/// The `node_modules` that hold exactly `packages` and what they need, made on first use.
///
/// None, with a line on stderr, where there is no Node or no package registry; a failure where `CI` is set.
pub(crate) fn modules(name: &str, packages: &[&str]) -> Option<PathBuf> {
    match try_modules(name, packages) {
        Ok(directory) => Some(directory),
        Err(reason) if std::env::var_os("CI").is_some() => panic!("the Node packages `{name}`: {reason}"),
        Err(reason) => {
            skip(&format!("no Node packages `{name}`: {reason}"));
            None
        }
    }
}

fn try_modules(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let directory = interop_directory().join(name);
    let marker = directory.join("installed");
    let wanted = packages.join("\n");

    // As for Python: one installs, the others wait, and the system's lock ends with the process.
    let lock = File::create(directory.with_extension("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(directory.join("node_modules"));
    }
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    fs::write(directory.join("package.json"), "{\"private\":true}").map_err(|error| error.to_string())?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact"]).args(packages);
    let output = npm.current_dir(&directory).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{npm:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{npm:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    // Last, so that what was interrupted is begun anew.
    fs::write(&marker, wanted).map_err(|error| error.to_string())?;
    Ok(directory.join("node_modules"))
}
