//! A table in the test's process: the embedded engine behind real HTTP, where every operation is counted and can be
//! made to fail. The gateway reaches it by `[store.dynamodb] endpoint`, through the AWS SDK as it would reach Amazon's.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sessiongate::store::embedded;
use tokio::sync::watch;

use super::answer::Answer;
use super::gate::Gate;
use super::server::{Received, Server};
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
    faults: Mutex<Vec<(Affected, Source)>>,
}

/// Where a fault comes from, each time that an operation is affected.
type Source = Box<dyn Fn() -> Option<Fault> + Send>;

/// One operation that the gateway asked for. Each try of a retried one counts.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// `GetItem`, `UpdateItem`, …
    pub(crate) name: String,
    /// What was asked.
    pub(crate) request: Value,
    /// How it went; `None` while it is not answered.
    pub(crate) outcome: Option<Outcome>,
}

/// How an operation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// A condition did not hold.
    Refused,
    /// Anything else, an injected fault among them.
    Failed,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// `ProvisionedThroughputExceededException`
    Throttle,
    /// `InternalServerError`
    ServerError,
    /// `AccessDeniedException`
    Denied,
    /// No answer, ever.
    Silence,
    /// The right answer, late.
    Delay(Duration),
    /// The right answer, broken off in the middle.
    Half,
    /// It is done, and answered with the first half of the right body, as if that were all.
    Truncated,
    /// It is done, and answered with another checksum than the body's.
    WrongChecksum,
    /// Nothing is done; the answer is 200 with this body.
    Body(&'static str),
    /// Nothing happens until the gate is open; then what would have happened before.
    Hold(Gate),
    /// It is done, and then not answered until the gate is open.
    HoldAnswer(Gate),
    /// Eventually consistent reads see this row, as a replica that lags behind would show it; `Null`: they see none.
    Stale(Value),
}

/// Which operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Affected {
    All,
    Only(&'static str),
}

/// How many operations of each kind there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) eventual_reads: usize,
    pub(crate) strong_reads: usize,
    /// Updates that were carried out.
    pub(crate) updates: usize,
    /// Updates that the condition refused.
    pub(crate) refused_updates: usize,
    pub(crate) puts: usize,
    pub(crate) deletes: usize,
}

impl Counts {
    /// Reads of either kind.
    pub(crate) fn reads(self) -> usize {
        self.eventual_reads + self.strong_reads
    }
}

impl Engine {
    /// An engine in memory, without tables.
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
                Box::pin(async move { shared.answer(received).await })
            }
        });
        Self { server, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The server in front of it, to stop it and start it again.
    pub(crate) fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Makes operations go wrong until [`Engine::heal`].
    pub(crate) fn inject(&self, affected: Affected, fault: Fault) {
        self.inject_by(affected, move || Some(fault.clone()));
    }

    /// Makes of each operation what `fault` says, until [`Engine::heal`].
    pub(crate) fn inject_by(&self, affected: Affected, fault: impl Fn() -> Option<Fault> + Send + 'static) {
        self.shared.faults.lock().unwrap().push((affected, Box::new(fault)));
    }

    /// Everything goes well again.
    pub(crate) fn heal(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// Every operation so far.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.shared.operations.borrow().clone()
    }

    /// How many operations of each kind there were so far.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for operation in self.shared.operations.borrow().iter() {
            match (operation.name.as_str(), operation.outcome) {
                ("GetItem", _) if operation.request["ConsistentRead"] == true => counts.strong_reads += 1,
                ("GetItem", _) => counts.eventual_reads += 1,
                ("UpdateItem", Some(Outcome::Done)) => counts.updates += 1,
                ("UpdateItem", Some(Outcome::Refused)) => counts.refused_updates += 1,
                ("PutItem", _) => counts.puts += 1,
                ("DeleteItem", _) => counts.deletes += 1,
                _ => {}
            }
        }
        counts
    }

    /// Waits until the operations so far are as `wanted` says.
    pub(crate) async fn until(&self, what: &str, wanted: impl FnMut(&Vec<Operation>) -> bool) {
        let mut operations = self.shared.operations.subscribe();
        let _operations = within(what, operations.wait_for(wanted)).await.expect("the sender lives");
    }

    /// Asks the engine directly: not counted, and no fault applies.
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
    async fn answer(&self, received: Received) -> Answer {
        let name =
            received.header("x-amz-target").and_then(|t| t.split_once('.')).expect("a target").1.to_owned();
        let body = Bytes::from(received.message.body);
        let request: Value = serde_json::from_slice(&body).expect("JSON");
        let mut number = 0;
        self.operations.send_modify(|operations| {
            number = operations.len();
            operations.push(Operation { name: name.clone(), request: request.clone(), outcome: None });
        });
        let (answer, outcome) = self.carry_out(&name, &request, body).await;
        if let Some(outcome) = outcome {
            self.operations.send_modify(|operations| operations[number].outcome = Some(outcome));
        }
        answer
    }

    async fn carry_out(&self, name: &str, request: &Value, body: Bytes) -> (Answer, Option<Outcome>) {
        let failed = |answer| (answer, Some(Outcome::Failed));
        let fault = self.fault(name, request);
        match &fault {
            Some(Fault::Throttle) => return failed(error(400, "ProvisionedThroughputExceededException")),
            Some(Fault::ServerError) => return failed(error(500, "InternalServerError")),
            Some(Fault::Denied) => return failed(error(400, "AccessDeniedException")),
            Some(Fault::Silence) => return (Answer::silence(), None),
            Some(Fault::Body(body)) => return failed(Answer::new(200, *body)),
            Some(Fault::Stale(Value::Null)) => return (json_answer(200, "{}"), Some(Outcome::Done)),
            Some(Fault::Stale(item)) => {
                return (json_answer(200, json!({ "Item": item }).to_string()), Some(Outcome::Done));
            }
            Some(Fault::Hold(gate)) => gate.pass().await,
            Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
            Some(Fault::Half | Fault::Truncated | Fault::WrongChecksum | Fault::HoldAnswer(_)) | None => {}
        }
        let (status, body) = self.dispatch(name, body).await;
        let outcome = match status {
            200 => Outcome::Done,
            _ if String::from_utf8_lossy(&body).contains("ConditionalCheckFailed") => Outcome::Refused,
            _ => Outcome::Failed,
        };
        let answer = json_answer(status, body.to_vec());
        match fault {
            Some(Fault::Half) => (answer.cut(body.len() / 2), Some(Outcome::Failed)),
            Some(Fault::Truncated) => failed(Answer::new(status, &body[..body.len() / 2])),
            Some(Fault::WrongChecksum) => {
                failed(Answer::new(status, body.to_vec()).header("x-amz-crc32", "1"))
            }
            Some(Fault::HoldAnswer(gate)) => (answer.after(&gate), Some(outcome)),
            _ => (answer, Some(outcome)),
        }
    }

    /// The first fault that applies.
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
        let answer = self.engine.dispatch(&format!("DynamoDB_20120810.{name}"), body).await;
        (answer.status, answer.body)
    }
}

fn json_answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    let body = body.into();
    let sum = crc32fast::hash(&body).to_string();
    let answer = Answer::new(status, body).header("x-amz-crc32", &sum);
    answer.header("Content-Type", "application/x-amz-json-1.0")
}

fn error(status: u16, code: &str) -> Answer {
    let body = json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "injected" });
    json_answer(status, body.to_string())
}
