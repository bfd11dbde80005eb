//! What a request takes of a rate limit: the bytes that may arrive before anybody reads them are paid before they are asked for, so that the
//! limit holds for what arrives, and not only for what is taken, however many requests there are.

use crate::transfer::throttle::Throttle;
use p2pdi::channel::limited_window;

/// The payment of one request. Dropped, it gives back what was paid for and did not arrive.
pub(super) struct Payment {
    limit: Throttle,
    /// Bytes of the request that are not paid yet.
    left: u64,
    /// Bytes that are paid and have not arrived.
    ahead: u64,
}

impl Payment {
    /// The payment of a request for `bytes`.
    pub(super) fn new(limit: &Throttle, bytes: u64) -> Self {
        Self { limit: limit.clone(), left: bytes, ahead: 0 }
    }

    /// Pays what may arrive before it is read. To be awaited before the request is sent.
    pub(super) async fn pay_ahead(&mut self) {
        let Some(rate) = self.limit.bytes_per_second() else { return };
        let due = u64::from(limited_window(rate)).min(self.left);
        // As a whole: of many requests that are paid for by and by, all would be sent at the same time in the end.
        self.limit.take_whole(usize::try_from(due).unwrap_or(usize::MAX)).await;
        self.left -= due;
        self.ahead += due;
    }

    /// Bytes arrived: waits until as many more are paid, or all are.
    pub(super) async fn arrived(&mut self, bytes: u64) {
        self.pay(bytes).await;
        // More than was asked for.
        let more = bytes.saturating_sub(self.ahead);
        self.limit.take_all(usize::try_from(more).unwrap_or(usize::MAX)).await;
        self.ahead = self.ahead.saturating_sub(bytes);
    }

    async fn pay(&mut self, most: u64) {
        let mut due = most.min(self.left);
        while due > 0 {
            // In parts, each of which counts at once: whoever waits may be cancelled.
            let paid = self.limit.take(usize::try_from(due).unwrap_or(usize::MAX)).await as u64;
            due -= paid;
            self.left -= paid;
            self.ahead += paid;
        }
    }
}

impl Drop for Payment {
    fn drop(&mut self) {
        self.limit.give_back(usize::try_from(self.ahead).unwrap_or(usize::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const MIB: u64 = 1 << 20;

    #[tokio::test]
    async fn what_did_not_arrive_is_given_back() {
        let limit = Throttle::new(Some(8 * MIB));
        let begun = Instant::now();
        for _ in 0..100 {
            let mut payment = Payment::new(&limit, 8 * MIB);
            payment.pay_ahead().await;
            assert_eq!((payment.ahead, payment.left), (MIB, 7 * MIB));
        }
        assert!(begun.elapsed().as_secs() < 6, "100 payments of an eighth of a second each took {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_request_is_paid_ahead_by_a_window_and_in_all_once() {
        let limit = Throttle::new(Some(16 * MIB));
        let mut payment = Payment::new(&limit, 4 * MIB);
        payment.pay_ahead().await;
        assert_eq!((payment.ahead, payment.left), (2 * MIB, 2 * MIB));
        for (left, ahead) in [(1, 2), (0, 2), (0, 1), (0, 0)] {
            payment.arrived(MIB).await;
            assert_eq!((payment.left, payment.ahead), (left * MIB, ahead * MIB));
        }
        // More than was asked for is paid, too.
        let begun = Instant::now();
        payment.arrived(16 * MIB).await;
        assert!(begun.elapsed().as_millis() >= 500, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn without_a_limit_nothing_is_awaited() {
        let mut payment = Payment::new(&Throttle::default(), u64::MAX);
        payment.pay_ahead().await;
        payment.arrived(u64::MAX).await;
    }
}
