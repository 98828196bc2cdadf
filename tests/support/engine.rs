//! A DynamoDB in the test's process: the embedded engine behind real HTTP, which records every operation and fails on demand.
//! The gateway uses it through `[store.dynamodb] endpoint` and the AWS SDK, as it would use Amazon's.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sessiongate::store::embedded;
use tokio::sync::watch;

use super::gate::Gate;
use super::scripted_response::ScriptedResponse;
use super::server::{ReceivedRequest, Server};
use super::within;

/// A running engine.
#[derive(Debug)]
pub(crate) struct Engine {
    server: Server,
    shared: Arc<Shared>,
}

struct Shared {
    engine: embedded::Engine,
    operations: watch::Sender<Vec<Operation>>,
    faults: Mutex<Vec<(Affected, FaultSource)>>,
}

/// Returns the fault of the next affected operation, if it has one.
type FaultSource = Box<dyn Fn() -> Option<Fault> + Send>;

/// An operation that the gateway requested. Each attempt of a retried operation counts.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// `GetItem`, `UpdateItem`, …
    pub(crate) name: String,
    /// The request's body.
    pub(crate) request: Value,
    /// The outcome; `None` until the engine has responded.
    pub(crate) outcome: Option<Outcome>,
}

/// Outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    /// `ConditionalCheckFailedException`
    ConditionFailed,
    /// Any other error, including an injected fault.
    Failed,
}

/// An injected fault.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// `ProvisionedThroughputExceededException`
    Throttle,
    /// `InternalServerError`
    ServerError,
    /// `AccessDeniedException`
    AccessDenied,
    /// A transaction on the row is in progress: `TransactionConflictException`, or `TransactionCanceledException` for a
    /// transaction.
    Conflict,
    /// The engine does nothing and never responds.
    NoResponse,
    /// The engine does the operation after this time.
    Delay(Duration),
    /// The engine does the operation and closes the connection in the middle of the response's body.
    BrokenOff,
    /// The engine does the operation and responds with the first half of the body and a Content-Length to match.
    Truncated,
    /// The engine does the operation and responds with a wrong checksum.
    WrongChecksum,
    /// The engine does nothing and responds with 200 and this body.
    Body(&'static str),
    /// The engine does the operation only when the gate is open.
    HoldRequest(Gate),
    /// The engine does the operation at once and responds when the gate is open.
    HoldResponse(Gate),
    /// Eventually consistent reads return this row, as from a replica that lags behind; with `Null`, they return none.
    Stale(Value),
}

/// The operations that a fault affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Affected {
    All,
    Only(&'static str),
}

/// Number of operations of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) eventual_reads: usize,
    pub(crate) strong_reads: usize,
    /// Successful updates.
    pub(crate) updates: usize,
    /// Updates whose condition failed.
    pub(crate) failed_conditions: usize,
    pub(crate) puts: usize,
    pub(crate) deletes: usize,
}

impl Counts {
    /// Returns the number of reads of both kinds.
    pub(crate) fn reads(self) -> usize {
        self.eventual_reads + self.strong_reads
    }
}

impl Engine {
    /// Starts an engine in memory without tables.
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared {
            engine: embedded::Engine::memory().expect("an engine"),
            operations: watch::Sender::default(),
            faults: Mutex::default(),
        });
        let server = Server::start({
            let shared = shared.clone();
            move |received| {
                let shared = shared.clone();
                Box::pin(async move { shared.respond(received).await })
            }
        });
        Self { server, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns its HTTP server, to stop it and start it again.
    pub(crate) fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Injects a fault into the affected operations until [`Engine::clear_faults`].
    pub(crate) fn inject(&self, affected: Affected, fault: Fault) {
        self.inject_with(affected, move || Some(fault.clone()));
    }

    /// Injects the fault that `fault` returns into each affected operation, until [`Engine::clear_faults`].
    pub(crate) fn inject_with(&self, affected: Affected, fault: impl Fn() -> Option<Fault> + Send + 'static) {
        self.shared.faults.lock().unwrap().push((affected, Box::new(fault)));
    }

    /// Removes all faults.
    pub(crate) fn clear_faults(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// Returns every operation so far.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.shared.operations.borrow().clone()
    }

    /// Returns the number of operations of each kind so far.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for operation in self.shared.operations.borrow().iter() {
            match (operation.name.as_str(), operation.outcome) {
                ("GetItem", _) if operation.request["ConsistentRead"] == true => counts.strong_reads += 1,
                ("GetItem", _) => counts.eventual_reads += 1,
                ("UpdateItem", Some(Outcome::Succeeded)) => counts.updates += 1,
                ("UpdateItem", Some(Outcome::ConditionFailed)) => counts.failed_conditions += 1,
                ("PutItem", _) => counts.puts += 1,
                ("DeleteItem", _) => counts.deletes += 1,
                _ => {}
            }
        }
        counts
    }

    /// Waits until `wanted` holds for the operations so far. `what` names them if the test fails.
    pub(crate) async fn wait_until(&self, what: &str, wanted: impl FnMut(&Vec<Operation>) -> bool) {
        let mut operations = self.shared.operations.subscribe();
        let _operations = within(what, operations.wait_for(wanted)).await.expect("the sender is alive");
    }

    /// Calls the engine directly: the operation is not recorded and no fault affects it.
    pub(crate) async fn call(&self, name: &str, request: Value) -> Value {
        let (status, body) = self.shared.dispatch(name, request.to_string().into()).await;
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(status, 200, "{name}: {body}");
        body
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("operations", &self.operations).finish_non_exhaustive()
    }
}

impl Shared {
    async fn respond(&self, received: ReceivedRequest) -> ScriptedResponse {
        let name =
            received.header("x-amz-target").and_then(|t| t.split_once('.')).expect("a target").1.to_owned();
        let body = Bytes::from(received.message.body);
        let request: Value = serde_json::from_slice(&body).expect("JSON");
        let mut number = 0;
        self.operations.send_modify(|operations| {
            number = operations.len();
            operations.push(Operation { name: name.clone(), request: request.clone(), outcome: None });
        });
        let (response, outcome) = self.execute(&name, &request, body).await;
        if let Some(outcome) = outcome {
            self.operations.send_modify(|operations| operations[number].outcome = Some(outcome));
        }
        response
    }

    async fn execute(&self, name: &str, request: &Value, body: Bytes) -> (ScriptedResponse, Option<Outcome>) {
        let failed = |response| (response, Some(Outcome::Failed));
        let fault = self.fault(name, request);
        match &fault {
            Some(Fault::Throttle) => return failed(error(400, "ProvisionedThroughputExceededException")),
            Some(Fault::ServerError) => return failed(error(500, "InternalServerError")),
            Some(Fault::AccessDenied) => return failed(error(400, "AccessDeniedException")),
            Some(Fault::Conflict) => return failed(conflict(name)),
            Some(Fault::NoResponse) => return (ScriptedResponse::never(), None),
            Some(Fault::Body(body)) => return failed(ScriptedResponse::new(200, *body)),
            Some(Fault::Stale(Value::Null)) => return (json_response(200, "{}"), Some(Outcome::Succeeded)),
            Some(Fault::Stale(item)) => {
                return (json_response(200, json!({ "Item": item }).to_string()), Some(Outcome::Succeeded));
            }
            Some(Fault::HoldRequest(gate)) => gate.pass().await,
            Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
            Some(Fault::BrokenOff | Fault::Truncated | Fault::WrongChecksum | Fault::HoldResponse(_))
            | None => {}
        }
        let (status, body) = self.dispatch(name, body).await;
        let outcome = match status {
            200 => Outcome::Succeeded,
            _ if String::from_utf8_lossy(&body).contains("ConditionalCheckFailed") => {
                Outcome::ConditionFailed
            }
            _ => Outcome::Failed,
        };
        let response = json_response(status, body.to_vec());
        match fault {
            Some(Fault::BrokenOff) => (response.truncated_to(body.len() / 2), Some(Outcome::Failed)),
            Some(Fault::Truncated) => failed(ScriptedResponse::new(status, &body[..body.len() / 2])),
            Some(Fault::WrongChecksum) => {
                failed(ScriptedResponse::new(status, body.to_vec()).header("x-amz-crc32", "1"))
            }
            Some(Fault::HoldResponse(gate)) => (response.after(&gate), Some(outcome)),
            _ => (response, Some(outcome)),
        }
    }

    /// Returns the first fault that affects this operation.
    fn fault(&self, name: &str, request: &Value) -> Option<Fault> {
        let eventual_read = name == "GetItem" && request["ConsistentRead"] != true;
        let faults = self.faults.lock().unwrap();
        let affected = faults.iter().filter(|(affected, _)| match affected {
            Affected::All => true,
            Affected::Only(only) => *only == name,
        });
        let mut affecting = affected.filter_map(|(_, fault)| fault());
        affecting.find(|fault| eventual_read || !matches!(fault, Fault::Stale(_)))
    }

    async fn dispatch(&self, name: &str, body: Bytes) -> (u16, Bytes) {
        let response = self.engine.dispatch(&format!("DynamoDB_20120810.{name}"), body).await;
        (response.status, response.body)
    }
}

fn json_response(status: u16, body: impl Into<Vec<u8>>) -> ScriptedResponse {
    let body = body.into();
    let sum = crc32fast::hash(&body).to_string();
    let response = ScriptedResponse::new(status, body).header("x-amz-crc32", &sum);
    response.header("Content-Type", "application/x-amz-json-1.0")
}

fn error(status: u16, code: &str) -> ScriptedResponse {
    let body = json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "injected" });
    json_response(status, body.to_string())
}

fn conflict(operation: &str) -> ScriptedResponse {
    if operation != "TransactWriteItems" {
        return error(400, "TransactionConflictException");
    }
    let reasons = json!([{ "Code": "None" }, { "Code": "TransactionConflict", "Message": "injected" }]);
    let code = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
    let body = json!({ "__type": code, "Message": "injected", "CancellationReasons": reasons });
    json_response(400, body.to_string())
}
