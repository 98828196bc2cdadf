//! `sessiongate table`: creates and shows the tables, and prints the IAM policy of the gateway and of the commands.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::format;
use crate::store::policy;
use crate::store::schema::TableState;

use super::args::{ConfigFile, ShowTables, Tables};
use super::context::{self, IfMissing};
use super::failure::{CommandResult, Failure};
use super::output::{self, BOLD, GOOD};

pub(super) fn create(args: &Tables, file: &ConfigFile) -> CommandResult {
    let config = context::load(file)?;
    let realms = context::table_realms(&config, args.realm.as_deref())?;
    super::block_on(async {
        if context::is_unreachable(&config.store).await {
            for realm in realms {
                let table = &realm.table;
                output::print_status(format_args!(
                    "table `{table}` is in the gateway's memory, and is created when the gateway starts"
                ))?;
            }
            return Ok(());
        }
        let store = context::open_store(&config.store, IfMissing::Create).await?;
        for realm in realms {
            let format = format::open(realm);
            let table = context::table(&store, realm, format.as_ref());
            let existed = table.describe().await?.is_some();
            table.provision(format.ttl_attribute()).await?;
            let outcome = if existed { "already exists" } else { "created" };
            output::print_status(format_args!("{GOOD}table `{}`{GOOD:#} {outcome}", table.name()))?;
        }
        Ok(())
    })
}

pub(super) fn show(args: &ShowTables, file: &ConfigFile) -> CommandResult {
    let config = context::load(file)?;
    let realms = context::table_realms(&config, args.tables.realm.as_deref())?;
    let missing = super::block_on(async {
        let store = context::open_store(&config.store, IfMissing::Fail).await?;
        let mut missing = Vec::new();
        for realm in realms {
            let format = format::open(realm);
            let table = context::table(&store, realm, format.as_ref());
            match table.describe().await? {
                None => missing.push(format!("`{}`", table.name())),
                Some(state) if args.json => {
                    writeln!(output::stdout(), "{}", output::json(&to_json(table.name(), &state)))?;
                }
                Some(state) => print(table.name(), &state)?,
            }
        }
        Ok(missing)
    })?;
    match missing.as_slice() {
        [] => Ok(()),
        missing => {
            let noun = if missing.len() == 1 { "table" } else { "tables" };
            let verb = if missing.len() == 1 { "does" } else { "do" };
            Err(Failure::refused(format!("{noun} {} {verb} not exist", missing.join(", ")))
                .hint("`sessiongate table create` creates missing tables"))
        }
    }
}

pub(super) fn policy(args: &Tables, file: &ConfigFile) -> CommandResult {
    let config = context::load(file)?;
    let realms = context::table_realms(&config, args.realm.as_deref())?;
    // The region is part of the ARN. Without `region` in the configuration, the policy has a wildcard for it.
    let region = match &config.store {
        crate::config::StoreConfig::Dynamodb(config) => config.region.clone(),
        crate::config::StoreConfig::Embedded { .. } => None,
    };
    let policies = realms.iter().map(|realm| policy::for_table(&realm.table, region.as_deref()));
    let policy = policies.reduce(|all, one| merge(all, &one)).unwrap_or_default();
    let mut stdout = output::stdout();
    writeln!(stdout, "{}", output::json(&format_args!("{policy:#}")))?;
    Ok(())
}

/// Returns a policy for the resources of both. The policies differ only in the resources.
fn merge(mut policy: Value, other: &Value) -> Value {
    let ours = policy.get_mut("Statement").and_then(Value::as_array_mut).into_iter().flatten();
    let theirs = other.get("Statement").and_then(Value::as_array).into_iter().flatten();
    for (ours, theirs) in ours.zip(theirs) {
        if let (Some(ours), Some(theirs)) = (ours.get_mut("Resource"), theirs.get("Resource")) {
            let mut resources = match ours.take() {
                Value::Array(resources) => resources,
                one @ (Value::String(_)
                | Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Object(_)) => {
                    vec![one]
                }
            };
            resources.push(theirs.clone());
            *ours = Value::Array(resources);
        }
    }
    policy
}

fn print(name: &str, state: &TableState) -> CommandResult {
    let ttl = match &state.ttl.attribute {
        Some(attribute) => format!("{} on `{attribute}`", state.ttl.status),
        None => state.ttl.status.clone(),
    };
    let mut stdout = output::stdout();
    writeln!(stdout, "{BOLD}{name}{BOLD:#}")?;
    writeln!(stdout, "  status   {}", state.status)?;
    writeln!(stdout, "  key      {}", state.key)?;
    writeln!(stdout, "  TTL      {ttl}")?;
    writeln!(stdout, "  billing  {}", state.billing)?;
    writeln!(
        stdout,
        "  rows     {} in {} bytes, by DynamoDB's last count",
        state.item_count, state.size_bytes
    )?;
    Ok(())
}

fn to_json(name: &str, state: &TableState) -> Value {
    json!({
        "table": name,
        "status": state.status,
        "key": { "attribute": state.key.attribute, "type": state.key.kind, "sort": state.key.sort },
        "ttl": { "status": state.ttl.status, "attribute": state.ttl.attribute },
        "billing": state.billing,
        "rows": state.item_count,
        "bytes": state.size_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_policy_names_all_tables() {
        let one = policy::for_table("a", Some("eu-west-1"));
        let all = ["b", "c"]
            .iter()
            .fold(one, |all, table| merge(all, &policy::for_table(table, Some("eu-west-1"))));
        for statement in all["Statement"].as_array().unwrap() {
            assert_eq!(
                statement["Resource"],
                json!(["a", "b", "c"].map(|name| format!("arn:aws:dynamodb:eu-west-1:*:table/{name}")))
            );
        }
    }
}
