//! HTTP/1.1 messages (RFC 9112) as bytes, for the connections of clients and of servers: how heads are parsed and
//! written, and how bodies are framed.
//!
//! | file | holds |
//! | --- | --- |
//! | `request` | parses request heads strictly, since an upstream could interpret a lax head differently |
//! | `response` | parses response heads, and writes the status lines of those that clients receive |
//! | `repair` | repairs unambiguous faults in the response heads of legacy servers |
//! | `body` | decodes bodies |
//! | `read_buffer`, `write_queue` | bytes read from a connection, bytes to be written to it |
//! | `error` | the reasons for rejecting a message |

mod body;
mod error;
mod read_buffer;
mod repair;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod write_queue;

pub(crate) use body::{Decoder, Step, write_chunk_size};
pub(crate) use error::{BadBody, BadHead, BadRequest};
pub(crate) use read_buffer::ReadBuffer;
pub(crate) use repair::Repairs;
pub(crate) use request::{HeadLimits, ParsedRequest, parse_request_length};
pub(crate) use response::{
    MAX_RESPONSE_HEAD, MAX_RESPONSE_LINES, ResponseHead, has_option, parse_decimal, write_status_line,
};
pub(crate) use write_queue::WriteQueue;
