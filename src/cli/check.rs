//! `sessiongate check`: checks the configuration as `serve` does before it binds an address. With `--connect`, it also
//! checks every table and connects to every upstream server. A failed check does not stop the others, so one run reports
//! every problem.

use crate::config::{Config, StoreConfig, UpstreamConfig, UpstreamServer};
use crate::format;
use crate::store::schema::SchemaError;
use crate::upstream;

use super::args::{Check, ConfigFile};
use super::context::{self, IfMissing};
use super::failure::{CommandResult, Failure};
use super::output::{self, BAD, GOOD};

/// Message about one table or server: `Ok` if it can be used, `Err` if it cannot.
type Finding = Result<String, String>;

pub(super) fn run(args: &Check, file: &ConfigFile) -> CommandResult {
    let config = context::load(file)?;
    output::print_status(format_args!("{GOOD}ok{GOOD:#}: `{}` has no errors", file.path().display()))?;
    if !args.connect {
        return Ok(());
    }
    let failed = super::block_on(check_connections(&config))?;
    match failed {
        0 => Ok(()),
        1 => Err(Failure::refused("1 check failed")),
        _ => Err(Failure::refused(format!("{failed} checks failed"))),
    }
}

/// Checks all tables and servers, and returns the number of failed checks.
async fn check_connections(config: &Config) -> Result<usize, Failure> {
    let mut failed = 0;
    let mut print = |finding: Finding| match finding {
        Ok(message) => output::print_status(format_args!("{GOOD}ok{GOOD:#}: {message}")),
        Err(message) => {
            failed += 1;
            output::print_status(format_args!("{BAD}error{BAD:#}: {message}"))
        }
    };
    for finding in check_tables(config).await {
        print(finding)?;
    }
    for upstream in &config.upstreams {
        for server in &upstream.servers {
            print(check_server(upstream, server).await)?;
        }
    }
    Ok(failed)
}

async fn check_tables(config: &Config) -> Vec<Finding> {
    // An embedded store in memory, or whose file does not exist yet, is created when the gateway starts.
    if let StoreConfig::Embedded { path, .. } = &config.store
        && path.as_ref().is_none_or(|path| !path.exists())
    {
        return vec![Ok("the embedded store is created when the gateway starts".to_owned())];
    }
    let store = match context::open_store(&config.store, IfMissing::Fail).await {
        Ok(store) => store,
        Err(failure) => return vec![Err(failure.message)],
    };
    let mut findings = Vec::new();
    for realm in &config.realms {
        let format = format::open(realm);
        let table = context::table(&store, realm, format.as_ref());
        findings.push(match table.check_schema().await {
            Ok(()) => Ok(format!(
                "table `{}` exists and has the key that realm `{}` needs",
                table.name(),
                realm.name
            )),
            Err(SchemaError::Missing(_)) if context::is_embedded(&config.store) => {
                Ok(format!("table `{}` is created when the gateway starts", table.name()))
            }
            Err(error) => Err(error.to_string()),
        });
    }
    findings
}

async fn check_server(upstream: &UpstreamConfig, server: &UpstreamServer) -> Finding {
    let message = |text: String| format!("upstream `{}`: {text}", upstream.name);
    upstream::try_connect(upstream, server).await.map(message).map_err(message)
}
