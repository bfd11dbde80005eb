//! Makes a call again that a server refused for now, when the server says (`google.rpc.RetryInfo`).

use crate::{backoff::pause_after, status::retry_after};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::Status;

/// Most tries of one call: a server that refuses each time is not waited for longer.
const TRIES_MAX: u32 = 8;

/// The tries of one call.
#[derive(Debug)]
pub struct Retry {
    tries: u32,
    until: Instant,
}

impl Retry {
    /// Pauses end within this time.
    pub fn within(limit: Duration) -> Self {
        Self { tries: 1, until: Instant::now() + limit }
    }

    /// Waits as long as the server of a refused call says, and a random moment more.
    ///
    /// # Errors
    /// The status itself: the server does not say when to call again, it said so too often, or that is too late.
    pub async fn wait(&mut self, refused: Status) -> Result<(), Status> {
        let Some(asked) = retry_after(&refused).filter(|_| self.tries < TRIES_MAX) else { return Err(refused) };
        // Without randomness from the system it is as long as the server says.
        let random = getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX));
        let pause = pause_after(asked, random);
        if Instant::now() + pause > self.until {
            return Err(refused);
        }
        self.tries += 1;
        sleep(pause).await;
        Ok(())
    }
}

/// Makes a call, and makes it again for as long as the server says when, and pauses end within `limit`.
///
/// # Errors
/// As the last call.
pub async fn when_told<T, F>(limit: Duration, mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut retry = Retry::within(limit);
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(refused) => retry.wait(refused).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Reason;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Calls until `refusals` calls were refused; returns how many calls were made, and how long it took.
    async fn called(refusals: u32, refusal: impl Fn() -> Status) -> (Result<u32, Status>, u32, Duration) {
        let (mut calls, begun) = (0, Instant::now());
        let answer = when_told(LIMIT, || {
            calls += 1;
            let answer = if calls <= refusals { Err(refusal()) } else { Ok(calls) };
            std::future::ready(answer)
        });
        let answer = answer.await;
        (answer, calls, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_made_again_when_the_server_says_and_not_before() {
        let told = || Reason::RateLimited.status_retry_after("too many", Duration::from_secs(1));
        let (answer, _, took) = called(3, told).await;
        assert_eq!(answer.unwrap(), 4);
        assert!(took >= Duration::from_secs(3) && took <= Duration::from_millis(4_600), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn other_errors_long_waits_and_endless_refusals_end_the_call() {
        let (answer, calls, _) = called(9, || Reason::NoRoute.status("nobody")).await;
        assert_eq!((Reason::of(&answer.unwrap_err()), calls), (Some(Reason::NoRoute), 1));
        let (answer, calls, took) = called(9, || Reason::RateLimited.status_retry_after("too many", 2 * LIMIT)).await;
        assert!(answer.is_err() && calls == 1 && took.is_zero());
        let (answer, calls, _) = called(99, || Reason::RateLimited.status_retry_after("too many", Duration::ZERO)).await;
        assert!(answer.is_err() && calls == TRIES_MAX);
    }
}
