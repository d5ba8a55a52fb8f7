//! [`LastingFailure`]: a failure that happens again and again, and since when.

use crate::control::protocol::FailureReport;
use crate::moment::Moment;

/// A failure that lasts until a success ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastingFailure {
    /// The error of the last occurrence.
    pub(crate) reason: String,
    /// The time of the first occurrence.
    pub(crate) since: Moment,
}

impl LastingFailure {
    /// Returns the failure after another occurrence. `known` is the failure that lasts already.
    pub(crate) fn after(known: Option<&Self>, reason: String) -> Self {
        let since = known.map_or_else(Moment::now, |known| known.since);
        Self { reason, since }
    }

    pub(crate) fn report(&self) -> FailureReport {
        FailureReport {
            reason: self.reason.clone(),
            since: self.since.seconds_since_epoch(),
        }
    }
}

impl From<FailureReport> for LastingFailure {
    /// Takes over the failure that another process of this machine noticed.
    fn from(report: FailureReport) -> Self {
        Self {
            reason: report.reason,
            since: Moment::at(report.since),
        }
    }
}
