//! The steps of a request, in order. Each step consumes a type that only the previous step can make:
//!
//! | step | makes |
//! | --- | --- |
//! | [`Inbound::read`] | [`Inbound`] |
//! | [`Inbound::sanitize`] | [`Sanitized`] |
//! | [`RateChecked::check`] | [`RateChecked`] |
//! | [`PolicyChecked::check`] | [`PolicyChecked`] |
//! | [`Routed::find`] | [`Routed`] |
//! | [`LimitsChecked::check`] | [`LimitsChecked`] |
//! | `Resolved::resolve` | [`Resolved`] |
//! | [`Admitted::check`] | [`Admitted`] |
//! | [`UpgradeChecked::check`] | [`UpgradeChecked`] |
//! | [`Forwardable::check`] | [`Forwardable`] |
//! | `inject` | [`Outbound`] |
//!
//! So code that leaves out a step does not compile. For most steps, examples that take it and leave it out:
//!
//! ```
//! # use sessiongate::{proxy::{Peer, Refusal, request::*}, rate::Limiter, time::Now};
//! fn after_sanitized(request: Sanitized, now: Now) -> Result<RateChecked, Refusal> {
//!     RateChecked::check(request, None, now)
//! }
//! ```
//! ```compile_fail,E0308
//! # use sessiongate::{proxy::{Peer, Refusal, request::*}, rate::Limiter, time::Now};
//! fn without_sanitize(request: Inbound, now: Now) -> Result<RateChecked, Refusal> {
//!     RateChecked::check(request, None, now)
//! }
//! ```
//! ```
//! # use sessiongate::proxy::{Peer, Refusal, request::*};
//! fn after_rate(request: RateChecked, peer: &Peer) -> Result<PolicyChecked, Refusal> {
//!     PolicyChecked::check(request, peer)
//! }
//! ```
//! ```compile_fail,E0308
//! # use sessiongate::proxy::{Peer, Refusal, request::*};
//! fn without_rate(request: Sanitized, peer: &Peer) -> Result<PolicyChecked, Refusal> {
//!     PolicyChecked::check(request, peer)
//! }
//! ```
//! ```
//! # use sessiongate::{proxy::{Refusal, Route, request::*}, route::Router};
//! fn after_policy(request: PolicyChecked, router: &Router<Route>) -> Result<Routed<'_>, Refusal> {
//!     Routed::find(request, router)
//! }
//! ```
//! ```compile_fail,E0308
//! # use sessiongate::{proxy::{Refusal, Route, request::*}, route::Router};
//! fn without_policy(request: RateChecked, router: &Router<Route>) -> Result<Routed<'_>, Refusal> {
//!     Routed::find(request, router)
//! }
//! ```
//! ```
//! # use sessiongate::{proxy::{Refusal, request::*}, time::Now};
//! fn after_routing(request: Routed<'_>, now: Now) -> Result<LimitsChecked<'_>, Refusal> {
//!     LimitsChecked::check(request, now)
//! }
//! ```
//! ```compile_fail,E0308
//! # use sessiongate::{proxy::{Refusal, request::*}, time::Now};
//! fn without_routing(request: PolicyChecked, now: Now) -> Result<LimitsChecked<'static>, Refusal> {
//!     LimitsChecked::check(request, now)
//! }
//! ```
//! ```
//! # use sessiongate::proxy::{Refusal, request::*};
//! fn after_limits_and_lookup(request: Resolved<'_>) -> Result<Admitted, Refusal> {
//!     Admitted::check(request)
//! }
//! ```
//! ```compile_fail,E0308
//! # use sessiongate::proxy::{Refusal, request::*};
//! fn without_lookup(request: LimitsChecked<'_>) -> Result<Admitted, Refusal> {
//!     Admitted::check(request)
//! }
//! ```
//! ```
//! # use sessiongate::proxy::{Refusal, request::*};
//! fn after_access(request: Admitted) -> Result<UpgradeChecked, Refusal> {
//!     UpgradeChecked::check(request)
//! }
//! ```
//! ```compile_fail,E0308
//! # use sessiongate::proxy::{Refusal, request::*};
//! fn without_access(request: Resolved<'_>) -> Result<UpgradeChecked, Refusal> {
//!     UpgradeChecked::check(request)
//! }
//! ```
//! ```
//! # use sessiongate::proxy::{Refusal, request::*};
//! fn after_upgrade(request: UpgradeChecked) -> Result<Forwardable, Refusal> {
//!     Forwardable::check(request)
//! }
//! ```
//! ```compile_fail,E0308
//! # use sessiongate::proxy::{Refusal, request::*};
//! fn without_upgrade(request: Admitted) -> Result<Forwardable, Refusal> {
//!     Forwardable::check(request)
//! }
//! ```
//! ```
//! # use sessiongate::proxy::{Refusal, request::*};
//! fn after_csrf(request: Forwardable, injection: &Injection<'_>) -> Result<Outbound, Refusal> {
//!     Outbound::new(request, injection)
//! }
//! ```
//! ```compile_fail,E0308
//! # use sessiongate::proxy::{Refusal, request::*};
//! fn without_csrf(request: UpgradeChecked, injection: &Injection<'_>) -> Result<Outbound, Refusal> {
//!     Outbound::new(request, injection)
//! }
//! ```

mod admit;
mod csrf;
mod grpc;
mod handshake;
mod inbound;
mod inject;
mod limits;
mod listener_policy;
mod mapping;
mod navigation;
mod peer;
mod policy_check;
mod preparation;
mod rate_limit;
mod request_id;
mod resolve;
mod routing;
mod upgrade;

pub use admit::Admitted;
pub(super) use admit::URI_COMPONENT;
pub use csrf::Forwardable;
pub(super) use grpc::is_call as is_grpc_call;
pub(super) use handshake::Handshake;
pub use handshake::UpgradeChecked;
pub use inbound::{Inbound, Sanitized};
pub use inject::{Injection, Outbound};
pub(super) use inject::{OutboundParts, inject};
pub use limits::LimitsChecked;
pub use listener_policy::{CertificateRule, ListenerPolicy, TlsFacts};
pub use mapping::map;
pub(super) use navigation::prefers_html;
pub use peer::Peer;
pub use policy_check::PolicyChecked;
pub(super) use preparation::SessionPreparation;
pub use rate_limit::RateChecked;
pub use request_id::RequestIds;
pub use resolve::Resolved;
pub(super) use routing::LOCATION_UNSAFE;
pub use routing::Routed;
pub(super) use upgrade::{UpgradeMethod, check_switch, may_send_early};
