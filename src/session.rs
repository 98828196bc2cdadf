//! Sessions: resolving the cookies of a request to a live session, changing it, and writing the cookies of the response.
//!
//! A [`Realm`] is one kind of session, with its format, table and cache. Its results keep three cases apart: there is
//! a session, there is no session, and the store is unavailable, so it is unknown whether there is one.

pub mod cookie;
pub mod judge;
pub mod purge;
pub mod reference;
pub(crate) mod set_cookie;

mod cache;
mod change;
mod change_queue;
mod create;
pub(crate) mod csrf;
pub mod destroy;
mod edit;
pub(crate) mod flash;
mod flight;
mod lookup;
mod mapped;
mod monitor;
mod mutation;
mod outage;
mod patch;
mod realm;
mod recheck;
mod reissue;
mod resolution;
mod resolve;
mod response_cookie;
mod state;

pub use create::{CreateError, CreatedSession, create};
pub use edit::Edit;
pub use mapped::{Mapped, MappingSlot, MappingTooLarge};
pub(crate) use monitor::{SessionMonitor, SessionStatus, Usage};
pub use mutation::{Action, ChangeError, MutationOutcome, SessionMutation, UpdatedSession};
pub use realm::{Realm, RealmUsage, Reissued};
pub use reissue::PendingReissue;
pub use resolution::{Active, Anonymous, LookupSource, Resolution};
pub use set_cookie::RewrittenCookie;
pub use state::{Session, SessionHeaders, UserState};
