//! Who has how many calls under way, and how many more may begin now.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::class::{CallClass, Limit};
use crate::{name::PeerName, token_bucket::TokenBucket};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Callers that are told apart, some 400 bytes each. Further ones share one set of limits until others have been quiet long enough to be
/// forgotten, which takes a minute at most.
const CALLERS_MAX: usize = 16_384;
/// Shortest time between two searches for callers to forget, when there are as many as are told apart.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);
/// When a call may be tried again that is refused because too many are under way: long against most calls, short for who waits.
const BUSY_RETRY: Duration = Duration::from_millis(250);

/// A caller with a certificate may do so many times as much as a stranger: it is known, and one name is one peer, not a site.
const NAMED_FACTOR: u32 = 4;

const CLASSES: usize = CallClass::ALL.len();

/// Limits of calls, by class.
#[derive(Debug, Clone)]
pub struct CallLimits {
    of_caller: [Limit; CLASSES],
    of_all: [Limit; CLASSES],
    /// Callers on this machine have limits of their own, too. Otherwise they are bounded by those of all callers only: a user of the machine
    /// can do worse than call.
    pub(super) limit_local: bool,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            of_caller: CallClass::ALL.map(CallClass::of_caller),
            of_all: CallClass::ALL.map(CallClass::of_all),
            limit_local: false,
        }
    }
}

impl CallLimits {
    /// Callers on this machine have the limits of other callers, too: for tests, and for servers behind a proxy on the same machine.
    #[must_use]
    pub fn limiting_local(self) -> Self {
        Self { limit_local: true, ..self }
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CallerKey {
    /// A client network.
    Network(IpAddr),
    /// The name in a checked certificate.
    Name(PeerName),
}

impl CallerKey {
    /// What it may do, where a stranger may do `limit`.
    fn limit(&self, limit: Limit) -> Limit {
        let factor = match self {
            Self::Network(_) => 1,
            Self::Name(_) => NAMED_FACTOR,
        };
        Limit {
            in_flight: limit.in_flight.saturating_mul(factor),
            per_second: limit.per_second.saturating_mul(factor),
            burst: limit.burst.saturating_mul(factor),
        }
    }
}

/// Why a call may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) class: CallClass,
    /// The limit of the caller; otherwise that of all callers.
    pub(super) of_caller: bool,
    /// Too many are under way; otherwise too many began.
    pub(super) busy: bool,
    pub(super) limit: Limit,
    pub(super) retry_after: Duration,
}

/// Where a call is counted, for [`Limiter::end`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Counted {
    /// In all only.
    InAll,
    /// In the limits that callers share for whom there is no room.
    Shared,
    /// In the caller's.
    Of(CallerKey),
}

/// Calls under way and rates of one caller, or of all.
#[derive(Debug)]
struct Usage {
    in_flight: [u32; CLASSES],
    rates: [TokenBucket; CLASSES],
}

impl Usage {
    fn new(limits: &[Limit; CLASSES], now: Duration) -> Self {
        let rates = limits.map(|limit| TokenBucket::holding(limit.burst, limit.per_second, now));
        Self { in_flight: [0; CLASSES], rates }
    }

    /// The same as that of a caller who never called.
    fn is_unused(&mut self, now: Duration) -> bool {
        self.in_flight == [0; CLASSES] && self.rates.iter_mut().all(|rate| rate.is_full(now))
    }
}

/// The calls of a server. Times are those since its start.
#[derive(Debug)]
pub(super) struct Limiter {
    limits: CallLimits,
    all: Usage,
    callers: BTreeMap<CallerKey, Usage>,
    shared: Usage,
    forgotten_at: Duration,
}

impl Limiter {
    pub(super) fn new(limits: CallLimits) -> Self {
        let now = Duration::ZERO;
        let (all, shared) = (Usage::new(&limits.of_all, now), Usage::new(&limits.of_caller, now));
        Self { limits, all, callers: BTreeMap::new(), shared, forgotten_at: now }
    }

    /// A call begins; `None`: its caller has no limits of its own.
    pub(super) fn begin(&mut self, caller: Option<CallerKey>, class: CallClass, now: Duration) -> Result<Counted, Refused> {
        let counted = self.counted(caller, now);
        self.begin_within(&counted, class, now)?;
        Ok(counted)
    }

    /// A call begins that is counted where an earlier one of its caller is, which has not ended.
    pub(super) fn begin_within(&mut self, counted: &Counted, class: CallClass, now: Duration) -> Result<(), Refused> {
        let index = class.index();
        let refused = |of_caller, busy, limit, retry_after| Refused { class, of_caller, busy, limit, retry_after };
        let (of_all, of_caller) = (self.limits.of_all[index], self.limit_of(counted, index));
        if self.all.in_flight[index] >= of_all.in_flight {
            return Err(refused(false, true, of_all, BUSY_RETRY));
        }
        // Its own first, so that those who are past it do not use up what is for all.
        if let Some(usage) = Self::usage(&mut self.callers, &mut self.shared, counted) {
            if usage.in_flight[index] >= of_caller.in_flight {
                return Err(refused(true, true, of_caller, BUSY_RETRY));
            }
            usage.rates[index].take_or_wait(now).map_err(|wait| refused(true, false, of_caller, wait))?;
            self.all.rates[index].take_or_wait(now).map_err(|wait| refused(false, false, of_all, wait))?;
            usage.in_flight[index] += 1;
        }
        self.all.in_flight[index] += 1;
        Ok(())
    }

    /// A call of `counted` turns out to be of a further class; only its rates count.
    pub(super) fn also(&mut self, counted: &Counted, class: CallClass, now: Duration) -> Result<(), Refused> {
        let index = class.index();
        let refused = |of_caller, limit, retry_after| Refused { class, of_caller, busy: false, limit, retry_after };
        let of_caller = self.limit_of(counted, index);
        let Some(usage) = Self::usage(&mut self.callers, &mut self.shared, counted) else { return Ok(()) };
        usage.rates[index].take_or_wait(now).map_err(|wait| refused(true, of_caller, wait))?;
        self.all.rates[index].take_or_wait(now).map_err(|wait| refused(false, self.limits.of_all[index], wait))
    }

    /// A call ends that [`Self::begin`] counted there.
    pub(super) fn end(&mut self, counted: &Counted, class: CallClass) {
        let index = class.index();
        self.all.in_flight[index] = self.all.in_flight[index].saturating_sub(1);
        if let Some(usage) = Self::usage(&mut self.callers, &mut self.shared, counted) {
            usage.in_flight[index] = usage.in_flight[index].saturating_sub(1);
        }
    }

    fn limit_of(&self, counted: &Counted, index: usize) -> Limit {
        let limit = self.limits.of_caller[index];
        if let Counted::Of(caller) = counted { caller.limit(limit) } else { limit }
    }

    fn usage<'a>(callers: &'a mut BTreeMap<CallerKey, Usage>, shared: &'a mut Usage, counted: &Counted) -> Option<&'a mut Usage> {
        match counted {
            Counted::InAll => None,
            Counted::Shared => Some(shared),
            Counted::Of(caller) => callers.get_mut(caller),
        }
    }

    /// Where a new call of `caller` is counted. A new caller is remembered, if there is room.
    fn counted(&mut self, caller: Option<CallerKey>, now: Duration) -> Counted {
        let Some(caller) = caller else { return Counted::InAll };
        if !self.callers.contains_key(&caller) {
            if self.callers.len() >= CALLERS_MAX && now >= self.forgotten_at + FORGET_INTERVAL {
                self.forgotten_at = now;
                self.callers.retain(|_, usage| !usage.is_unused(now));
            }
            if self.callers.len() >= CALLERS_MAX {
                return Counted::Shared;
            }
            let limits = self.limits.of_caller.map(|limit| caller.limit(limit));
            self.callers.insert(caller.clone(), Usage::new(&limits, now));
        }
        Counted::Of(caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const MS: Duration = Duration::from_millis(1);

    fn caller(number: usize) -> CallerKey {
        CallerKey::Network(Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into())
    }

    /// Registrations that begin and end at once, of so many tried.
    fn registered(limiter: &mut Limiter, caller: &CallerKey, tried: u32, now: Duration) -> u32 {
        (0..tried).map(|_| begin_and_end(limiter, Some(caller.clone()), CallClass::Register, now)).map(u32::from).sum()
    }

    fn begin_and_end(limiter: &mut Limiter, caller: Option<CallerKey>, class: CallClass, now: Duration) -> bool {
        let begun = limiter.begin(caller, class, now);
        if let Ok(counted) = &begun {
            limiter.end(counted, class);
        }
        begun.is_ok()
    }

    #[test]
    fn a_caller_past_its_rate_waits_and_neither_others_nor_other_classes_do() {
        let mut limiter = Limiter::new(CallLimits::default());
        let Limit { per_second, burst, .. } = CallClass::Register.of_caller();
        let (a, b) = (caller(1), caller(2));
        assert_eq!(registered(&mut limiter, &a, 5_000, Duration::ZERO), burst);
        let refused = limiter.begin(Some(a.clone()), CallClass::Register, Duration::ZERO).unwrap_err();
        assert!(refused.of_caller && !refused.busy && refused.retry_after == Duration::from_secs(1) / per_second, "{refused:?}");
        assert_eq!(registered(&mut limiter, &b, 1, Duration::ZERO), 1);
        assert!(begin_and_end(&mut limiter, Some(a.clone()), CallClass::KeepAlive, Duration::ZERO));
        assert!(begin_and_end(&mut limiter, None, CallClass::Register, Duration::ZERO));
        assert_eq!(registered(&mut limiter, &a, 5_000, refused.retry_after), 1);
        assert_eq!(registered(&mut limiter, &a, 5_000, refused.retry_after + Duration::from_secs(1)), per_second);
    }

    #[test]
    fn a_caller_with_a_certificate_may_do_more_and_is_not_its_address() {
        let mut limiter = Limiter::new(CallLimits::default());
        let named = CallerKey::Name("a".parse().unwrap());
        let burst = CallClass::Register.of_caller().burst;
        assert_eq!(registered(&mut limiter, &caller(1), 5_000, Duration::ZERO), burst);
        assert_eq!(registered(&mut limiter, &named, 5_000, Duration::ZERO), NAMED_FACTOR * burst);
    }

    #[test]
    fn calls_under_way_are_limited_for_each_caller_and_in_all() {
        let mut limiter = Limiter::new(CallLimits::default());
        let (own, all) = (CallClass::Whisper.of_caller().in_flight, CallClass::Whisper.of_all().in_flight);
        let mut counted = Vec::new();
        for number in 1.. {
            let begun = (0..own + 1).map_while(|_| limiter.begin(Some(caller(number)), CallClass::Whisper, Duration::ZERO).ok());
            counted.extend(begun);
            if counted.len() >= all as usize {
                break;
            }
            let refused = limiter.begin(Some(caller(number)), CallClass::Whisper, Duration::ZERO).unwrap_err();
            assert!(refused.of_caller && refused.busy);
        }
        assert_eq!(counted.len(), all as usize);
        // Also for who has no limit of its own.
        let refused = limiter.begin(None, CallClass::Whisper, Duration::ZERO).unwrap_err();
        assert!(!refused.of_caller && refused.busy);
        for counted in &counted {
            limiter.end(counted, CallClass::Whisper);
        }
        assert!(begin_and_end(&mut limiter, None, CallClass::Whisper, Duration::ZERO));
        assert_eq!(limiter.all.in_flight, [0; CLASSES]);
    }

    #[test]
    fn the_table_of_callers_is_bounded_and_quiet_callers_are_forgotten() {
        let mut limiter = Limiter::new(CallLimits::default());
        for number in 0..CALLERS_MAX + 1_000 {
            begin_and_end(&mut limiter, Some(caller(number)), CallClass::Query, MS);
        }
        assert_eq!(limiter.callers.len(), CALLERS_MAX);
        let busy = limiter.begin(Some(caller(7)), CallClass::Stream, MS).unwrap();
        let later = Duration::from_secs(60);
        assert_eq!(
            limiter.begin(Some(caller(CALLERS_MAX + 1)), CallClass::Query, later),
            Ok(Counted::Of(caller(CALLERS_MAX + 1)))
        );
        assert_eq!(limiter.callers.len(), 2);
        limiter.end(&busy, CallClass::Stream);
    }

    #[test]
    fn callers_for_whom_there_is_no_room_share_one_limit() {
        let mut limiter = Limiter::new(CallLimits::default());
        for number in 0..CALLERS_MAX {
            begin_and_end(&mut limiter, Some(caller(number)), CallClass::Query, Duration::ZERO);
        }
        let burst = CallClass::Register.of_caller().burst;
        let mut registered = 0;
        for number in 0..2 * burst as usize {
            let key = Some(caller(CALLERS_MAX + number));
            registered += u32::from(begin_and_end(&mut limiter, key, CallClass::Register, Duration::ZERO));
        }
        assert_eq!(registered, burst);
    }

    #[test]
    fn a_further_class_takes_from_its_own_rate_only() {
        let mut limiter = Limiter::new(CallLimits::default());
        let counted = limiter.begin(Some(caller(1)), CallClass::Query, Duration::ZERO).unwrap();
        let burst = CallClass::Listing.of_caller().burst;
        assert!((0..burst).all(|_| limiter.also(&counted, CallClass::Listing, Duration::ZERO).is_ok()));
        let refused = limiter.also(&counted, CallClass::Listing, Duration::ZERO).unwrap_err();
        assert_eq!((refused.class, refused.of_caller), (CallClass::Listing, true));
        assert!(limiter.also(&Counted::InAll, CallClass::Listing, Duration::ZERO).is_ok());
    }
}
