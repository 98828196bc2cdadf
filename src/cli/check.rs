//! `sessiongate check`: exactly what `serve` does with the configuration before it binds anything; with `--connect`,
//! also a look at every table and a connection to every upstream server. It stops at nothing, so that one run tells
//! all there is to mend.

use crate::config::{Config, StoreConfig, UpstreamConfig, UpstreamServer};
use crate::format;
use crate::store::schema::SchemaError;
use crate::upstream;

use super::args::{Check, ConfigFile};
use super::failure::{CommandResult, Failure};
use super::output::{self, BAD, GOOD};
use super::site::{self, Reach};

/// What a look at one thing came to: how it is, or what is wrong with it.
type Finding = Result<String, String>;

pub(super) fn run(args: &Check, file: &ConfigFile) -> CommandResult {
    let config = site::load(file)?;
    output::say(format_args!("{GOOD}ok{GOOD:#}: `{}` has no errors", file.path().display()))?;
    if !args.connect {
        return Ok(());
    }
    let failed = super::block_on(connect(&config))?;
    match failed {
        0 => Ok(()),
        1 => Err(Failure::refused("1 of the things that the gateway needs is not as it should be")),
        _ => Err(Failure::refused(format!(
            "{failed} of the things that the gateway needs are not as they should be"
        ))),
    }
}

/// Looks at everything, and counts what is wrong.
async fn connect(config: &Config) -> Result<usize, Failure> {
    let mut failed = 0;
    let mut tell = |finding: Finding| match finding {
        Ok(good) => output::say(format_args!("{GOOD}ok{GOOD:#}: {good}")),
        Err(bad) => {
            failed += 1;
            output::say(format_args!("{BAD}error{BAD:#}: {bad}"))
        }
    };
    for finding in tables(config).await {
        tell(finding)?;
    }
    for upstream in &config.upstreams {
        for server in &upstream.servers {
            tell(reach(upstream, server).await)?;
        }
    }
    Ok(failed)
}

async fn tables(config: &Config) -> Vec<Finding> {
    // What is in the gateway's own process is made when it starts, and can only be looked at where it left a file.
    if let StoreConfig::Embedded { path, .. } = &config.store
        && path.as_ref().is_none_or(|path| !path.exists())
    {
        return vec![Ok("the embedded store is made when the gateway starts".to_owned())];
    }
    let store = match site::open_store(&config.store, Reach::Existing).await {
        Ok(store) => store,
        Err(failure) => return vec![Err(failure.message)],
    };
    let mut findings = Vec::new();
    for realm in &config.realms {
        let format = format::open(realm);
        let table = site::table(&store, realm, format.as_ref());
        findings.push(match table.check_schema().await {
            Ok(()) => Ok(format!(
                "table `{}` is there, with the key that realm `{}` needs",
                table.name(),
                realm.name
            )),
            Err(SchemaError::Missing(_)) if site::is_embedded(&config.store) => {
                Ok(format!("table `{}` is made when the gateway starts", table.name()))
            }
            Err(error) => Err(error.to_string()),
        });
    }
    findings
}

async fn reach(upstream: &UpstreamConfig, server: &UpstreamServer) -> Finding {
    let told = |what: String| format!("upstream `{}`: {what}", upstream.name);
    upstream::try_connect(upstream, server).await.map(told).map_err(told)
}
