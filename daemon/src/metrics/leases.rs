//! Prints the metrics of leases on publishes, which the store counts.

use cachewfs_store::{LeaseEvent, LeaseMetrics};

use super::names;
use super::text::MetricsPage;

/// Prints the number of each event.
pub(super) fn render_leases(leases: &LeaseMetrics, page: &mut MetricsPage) {
    let mut samples = page.metric(&names::LEASES);
    for event in LeaseEvent::ALL {
        samples.push(&[event.as_str()], leases.count(event));
    }
}
