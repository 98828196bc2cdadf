//! HTTP/1.1 messages (RFC 9112) as bytes, for the connections of clients and of servers: how heads are parsed and
//! written, and how bodies are framed.
//!
//! | file | holds |
//! | --- | --- |
//! | `request` | parses request heads: strictly, since upstreams could read what is lax in another way |
//! | `response` | parses response heads, and writes those that clients receive |
//! | `mend` | mends response heads of legacy servers that can be read in one way only |
//! | `body` | decodes bodies |
//! | `read_buffer`, `write_queue` | bytes on their way from and to a connection |
//! | `error` | why a message is rejected |

mod body;
mod error;
mod mend;
mod read_buffer;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod write_queue;

pub(crate) use body::{Decoder, Step, write_chunk_size};
pub(crate) use error::{BadBody, BadHead, BadRequest};
pub(crate) use mend::Mends;
pub(crate) use read_buffer::ReadBuffer;
pub(crate) use request::{HeadLimits, RequestHead};
pub(crate) use response::{
    MAX_RESPONSE_HEAD, ResponseHead, has_option, parse_decimal, write_field, write_status_line,
};
pub(crate) use write_queue::WriteQueue;
