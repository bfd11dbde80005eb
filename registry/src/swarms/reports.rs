//! Whole holders that members report. A report is no proof: ten invented holders of one member count as that one member's.

use super::{
    announce::ReportedHolder,
    limits::{REPORT_BYTES, REPORTERS_MAX, REPORTS_MAX},
};
use rand::{Rng, seq::SliceRandom as _};
use std::cmp::Reverse;

/// A reported holder, and the members that report it: one or more.
struct Report {
    holder: ReportedHolder,
    reporters: Vec<u32>,
}

impl Report {
    /// The only member that reports it.
    fn sole_reporter(&self) -> Option<u32> {
        match self.reporters[..] {
            [reporter] => Some(reporter),
            _ => None,
        }
    }
}

/// The reported holders of one swarm.
#[derive(Default)]
pub(super) struct Reports(Vec<Report>);

fn bytes_of(holder: &ReportedHolder) -> usize {
    REPORT_BYTES + holder.name.len() + holder.endpoint.len() + holder.zone.len()
}

impl Reports {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Estimated memory.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|report| bytes_of(&report.holder)).sum()
    }

    /// A member reports these holders, and no others any more.
    pub(super) fn replace(&mut self, reporter: u32, holders: &[ReportedHolder]) {
        self.withdraw(reporter, |holder| !holders.contains(holder));
        for holder in holders {
            if let Some(report) = self.0.iter_mut().find(|report| report.holder == *holder) {
                if !report.reporters.contains(&reporter) && report.reporters.len() < REPORTERS_MAX {
                    report.reporters.push(reporter);
                }
            } else if self.0.len() < REPORTS_MAX || self.make_room(reporter) {
                self.0.push(Report { holder: holder.clone(), reporters: vec![reporter] });
            } else {
                return;
            }
        }
    }

    /// A member that is over reports nothing any more.
    pub(super) fn remove(&mut self, reporter: u32) {
        self.withdraw(reporter, |_| true);
    }

    fn withdraw(&mut self, reporter: u32, is_withdrawn: impl Fn(&ReportedHolder) -> bool) {
        self.0.retain_mut(|report| {
            if is_withdrawn(&report.holder) {
                report.reporters.retain(|known| *known != reporter);
            }
            !report.reporters.is_empty()
        });
    }

    fn reported_by(&self, reporter: u32) -> usize {
        self.0.iter().filter(|report| report.sole_reporter() == Some(reporter)).count()
    }

    /// Drops a report of the member with the most of its own, if that has at least two more than `reporter`.
    fn make_room(&mut self, reporter: u32) -> bool {
        let own = self.reported_by(reporter);
        let most = self.0.iter().filter_map(Report::sole_reporter).map(|other| (self.reported_by(other), other)).max();
        let Some((_, other)) = most.filter(|(count, _)| *count > own + 1) else { return false };
        let last = self.0.iter().rposition(|report| report.sole_reporter() == Some(other));
        last.map(|last| self.0.swap_remove(last)).is_some()
    }

    /// Up to `count` of them, at random, but a member's second one only after the first one of every other.
    pub(super) fn choose(
        &self,
        count: usize,
        usable: impl Fn(&ReportedHolder) -> bool,
        rng: &mut impl Rng,
    ) -> Vec<&ReportedHolder> {
        let mut order: Vec<usize> = (0..self.0.len()).filter(|at| usable(&self.0[*at].holder)).collect();
        order.shuffle(rng);
        let mut ranked: Vec<(usize, Reverse<usize>, usize)> = Vec::with_capacity(order.len());
        for (at, index) in order.iter().enumerate() {
            let sole = self.0[*index].sole_reporter();
            let earlier = |other: &&usize| sole.is_some() && self.0[**other].sole_reporter() == sole;
            let rank = order[..at].iter().filter(earlier).count();
            ranked.push((rank, Reverse(self.0[*index].reporters.len()), *index));
        }
        // Stable: the order stays random where nothing else decides.
        ranked.sort_by_key(|(rank, reporters, _)| (*rank, *reporters));
        ranked.into_iter().take(count).map(|(_, _, index)| &self.0[index].holder).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    fn holder(number: usize) -> ReportedHolder {
        let endpoint = format!("10.0.0.{number}:7801").into();
        ReportedHolder { id: None, name: "".into(), endpoint, zone: "".into() }
    }

    fn holders(numbers: std::ops::Range<usize>) -> Vec<ReportedHolder> {
        numbers.map(holder).collect()
    }

    #[test]
    fn invented_holders_of_one_member_do_not_hide_those_of_others() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut reports = Reports::default();
        reports.replace(1, &holders(100..108));
        reports.replace(2, &holders(110..118));
        assert_eq!(reports.len(), REPORTS_MAX);
        for reporter in 3..7 {
            reports.replace(reporter, &[holder(1)]);
        }
        reports.replace(7, &[holder(2)]);
        for _ in 0..20 {
            let named = reports.choose(4, |_| true, &mut rng);
            assert!(named.contains(&&holder(1)) && named.contains(&&holder(2)), "{named:?}");
            assert_eq!(named[0], &holder(1), "four members report it");
        }
        assert!(reports.len() <= REPORTS_MAX);
    }

    #[test]
    fn a_report_ends_with_its_last_reporter_and_when_it_is_not_repeated() {
        let mut reports = Reports::default();
        reports.replace(1, &holders(1..4));
        reports.replace(2, &holders(3..5));
        assert_eq!(reports.len(), 4);
        reports.replace(1, &holders(2..3));
        assert_eq!(reports.len(), 3);
        reports.remove(2);
        assert_eq!(reports.0.iter().map(|report| &report.holder).collect::<Vec<_>>(), [&holder(2)]);
        reports.remove(1);
        assert_eq!((reports.is_empty(), reports.bytes()), (true, 0));
    }
}
