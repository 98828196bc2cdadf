//! `[admin]`
//!
//! The admin listener shows the names of tables, servers and routes, so clients on other machines need a token.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::diagnostic::Diagnostic;
use super::environment::Environment;
use super::realms::keys;
use super::section::Section;
use super::value::{self, Fault, text};
use crate::secret::Secret;

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address to listen on.
    pub address: AdminAddress,
    /// The bearer token for everything except `/healthz` and `/readyz`. Required unless only this machine can connect.
    pub token: Option<Secret>,
}

/// An address of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// An IP address and a port. With port 0 the system chooses one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Reads `[admin]`. Returns `None` if there is no admin listener.
pub(super) fn read(
    root: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
) -> Option<AdminConfig> {
    root.table("admin", |admin| {
        let token = admin.get("token", |value| keys::load(value, directory, environment, false));
        if !admin.is_present() {
            // Makes `address` a known key.
            let _absent = admin.get("address", value::string);
            return None;
        }
        let address = admin.require("address", text(|text| address(text, directory)));
        if let Some(token) = &token {
            if token.is_literal {
                keys::warn_of_literal(
                    admin,
                    "token",
                    "anyone who can read the file can use the admin listener",
                );
            }
            if !token.secret.expose().iter().all(u8::is_ascii_graphic) {
                let fault = Fault::new("must consist of printable ASCII characters without spaces");
                admin.refuse("token", &[], fault);
            }
        }
        let address = address?;
        if let AdminAddress::Tcp(tcp) = &address
            && !tcp.ip().is_loopback()
            && !admin.has("token")
        {
            let exposed =
                Diagnostic::error("`admin.address` is reachable from other machines, but no token is set");
            let hint = "set `token = { env = \"NAME\" }` or `{ file = \"path\" }`, or listen on 127.0.0.1";
            admin.report_unless_broken(&["token"], exposed.hint(hint), admin.span("address"));
        }
        Some(AdminConfig { address, token: token.map(|token| token.secret) })
    })
}

fn address(text: &str, directory: &Path) -> Result<AdminAddress, Fault> {
    match text.strip_prefix("unix:") {
        Some("") => {
            Err(Fault::new("has no socket path").hint("for example \"unix:/run/sessiongate/admin.sock\""))
        }
        Some(path) => Ok(AdminAddress::Unix(directory.join(path))),
        None => value::address(text).map(AdminAddress::Tcp),
    }
}
