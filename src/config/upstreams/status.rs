//! Sets of statuses, such as `"200-399"` or `"200, 204, 300-399"`.

use http::StatusCode;

use crate::config::value::Fault;

/// Inclusive ranges of statuses. The default is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusRanges(Vec<(u16, u16)>);

impl StatusRanges {
    /// Returns the default for a successful health check, 200 to 399.
    pub(super) fn success() -> Self {
        Self(vec![(200, 399)])
    }

    /// Returns whether `status` is in one of the ranges.
    pub fn contains(&self, status: StatusCode) -> bool {
        let status = status.as_u16();
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

pub(super) fn read(text: &str) -> Result<StatusRanges, Fault> {
    let fault = || {
        Fault::new("must be statuses from 100 to 599")
            .hint("for example \"200\", \"200-399\" or \"200, 204\"")
    };
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten().filter(|status| (100..=599).contains(status))
    };
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (status(first.trim())?, status(last.trim())?);
        (first <= last).then_some((first, last))
    };
    let ranges: Option<Vec<_>> = text.split(',').map(|part| range(part.trim())).collect();
    ranges.map(StatusRanges).ok_or_else(fault)
}
