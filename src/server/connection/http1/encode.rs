//! Encodes responses: their heads, and the framing of their bodies (RFC 9112, 6 and 7).

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};
use http_body::{Body, Frame};

use crate::fields::write_field;
use crate::http1::{has_option, parse_decimal, write_chunk_size, write_status_line};
use crate::message::Response;
use crate::time::Clock;

/// A first piece of a body up to this size is copied behind the head, since one write of one buffer is cheapest.
pub(super) const MAX_COPY: usize = 8 * 1024;

/// The properties of a request that determine the encoding of its response.
#[derive(Clone, Debug)]
pub(super) struct RequestInfo {
    pub(super) method: Method,
    pub(super) version: Version,
    /// Whether another request may follow on the connection.
    pub(super) keep_alive: bool,
}

/// Encodes the body of a response.
#[derive(Debug)]
pub(super) struct Encoder {
    framing: Framing,
    /// Whether another request may follow.
    pub(super) keep_alive: bool,
}

/// The framing of a response body.
#[derive(Debug)]
enum Framing {
    /// No body is sent, regardless of the headers.
    None,
    /// Content-Length, with this number of bytes left to send.
    Length(u64),
    Chunked,
    /// The body ends when the connection is closed.
    UntilClose,
}

/// Error of a body whose length differs from its Content-Length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the length of the response's body differs from its Content-Length")]
pub(super) struct WrongLength;

impl Encoder {
    /// Appends the head of a response to `head`, including the empty line. Returns the encoder of the body.
    pub(super) fn start<B: Body>(response: &Response<B>, request: &RequestInfo, head: &mut Vec<u8>) -> Self {
        let Response { status, reason, fields, body } = response;
        let exact = body.size_hint().exact();
        let copied =
            exact.and_then(|length| usize::try_from(length).ok()).filter(|length| *length <= MAX_COPY);
        head.reserve(fields.written_size() + 256 + copied.unwrap_or_default());
        write_status_line(request.version, *status, reason.as_ref(), head);
        let switches = *status == StatusCode::SWITCHING_PROTOCOLS;
        let mut announced = None;
        let (mut closes, mut has_date) = (false, status.is_informational());
        fields.write_where(head, |name, value| match *name {
            // Written below.
            CONTENT_LENGTH => {
                announced = parse_decimal(value);
                false
            }
            TRANSFER_ENCODING => false,
            CONNECTION if !switches => {
                closes |= has_option(value, b"close");
                false
            }
            DATE => {
                has_date = true;
                true
            }
            _ => true,
        });
        let (framing, length) = if status.is_informational() || *status == StatusCode::NO_CONTENT {
            (Framing::None, None)
        } else if request.method == Method::HEAD || *status == StatusCode::NOT_MODIFIED {
            (Framing::None, announced)
        } else if let Some(length) = exact.or(announced) {
            (Framing::Length(length), Some(length))
        } else if request.version == Version::HTTP_10 {
            closes = true;
            (Framing::UntilClose, None)
        } else {
            write_field(TRANSFER_ENCODING.as_str(), b"chunked", head);
            (Framing::Chunked, None)
        };
        if let Some(length) = length {
            // Writing to memory never fails.
            let _ = write!(head, "content-length: {length}\r\n");
        }
        let keep_alive = request.keep_alive && !closes && !switches;
        if !keep_alive && !switches {
            write_field(CONNECTION.as_str(), b"close", head);
        } else if keep_alive && request.version == Version::HTTP_10 {
            write_field(CONNECTION.as_str(), b"keep-alive", head);
        }
        if !has_date {
            write_date(head);
        }
        head.extend_from_slice(b"\r\n");
        Self { framing, keep_alive }
    }

    /// Returns whether the end of the connection is the end of the body.
    pub(super) fn ends_by_close(&self) -> bool {
        matches!(self.framing, Framing::UntilClose)
    }

    /// Returns whether there is a body to send.
    pub(super) fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None)
    }

    /// Encodes a piece of the body, and passes the encoded bytes to `push`.
    pub(super) fn encode(
        &mut self,
        frame: Frame<Bytes>,
        mut push: impl FnMut(Bytes),
    ) -> Result<(), WrongLength> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.finish_with(frame.trailers_ref(), push),
        };
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::None => return Ok(()),
            Framing::Length(left) => {
                // The client would interpret bytes beyond Content-Length as the next response.
                *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
            }
            Framing::Chunked => {
                let mut size = bytes::BytesMut::with_capacity(20);
                write_chunk_size(data.len(), &mut size);
                push(size.freeze());
                push(data);
                push(Bytes::from_static(b"\r\n"));
                return Ok(());
            }
            Framing::UntilClose => {}
        }
        push(data);
        Ok(())
    }

    /// Ends the body, unless trailers have ended it.
    pub(super) fn finish(&mut self, push: impl FnMut(Bytes)) -> Result<(), WrongLength> {
        self.finish_with(None, push)
    }

    fn finish_with(
        &mut self,
        trailers: Option<&HeaderMap>,
        mut push: impl FnMut(Bytes),
    ) -> Result<(), WrongLength> {
        match self.framing {
            Framing::None | Framing::Length(0) | Framing::UntilClose => {}
            Framing::Length(_) => return Err(WrongLength),
            Framing::Chunked => match trailers {
                None => push(Bytes::from_static(b"0\r\n\r\n")),
                Some(trailers) => {
                    let mut end = b"0\r\n".to_vec();
                    for (name, value) in trailers {
                        write_field(name.as_str(), value.as_bytes(), &mut end);
                    }
                    end.extend_from_slice(b"\r\n");
                    push(end.into());
                }
            },
        }
        self.framing = Framing::None;
        Ok(())
    }
}

thread_local! {
    /// The current Date of responses: the second since the epoch, and its text.
    static DATE_NOW: RefCell<(i64, String)> = const { RefCell::new((-1, String::new())) };
}

/// Appends a Date field (RFC 9110, 6.6.1). Its text is formatted once per second.
fn write_date(head: &mut Vec<u8>) {
    let second = Clock.wall().as_secs();
    DATE_NOW.with_borrow_mut(|(formatted, text)| {
        if *formatted != second {
            *formatted = second;
            let since_epoch = Duration::from_secs(u64::try_from(second).unwrap_or_default());
            *text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since_epoch);
        }
        write_field(DATE.as_str(), text.as_bytes(), head);
    });
}
