//! All swarms of a registry, or of its share of the hashes.

use super::{
    announce::{Announce, Caller, DocumentKey, ReportedHolder},
    callers::{self, Callers},
    choose::{Asker, choose},
    interval::{Situation, interval_ms},
    limits::{
        BYTES_MAX, CHECK_MS, INTERVALS_PER_TTL, MEMBER_BYTES, MEMBERS_MAX, MEMBERS_PER_SWARM_MAX, REPORTED_NAMED_AMONG_WHOLE,
        REPORTED_NAMED_MAX, STARVED_MS, SWARM_BYTES, SWARMS_PER_PEER_MAX, TTL_MIN_MS, WANT_MAX,
    },
    swarm::{Member, Report, Swarm},
};
use p2pdi::{
    cookie::CookieHash,
    v1::{AnnounceResponse, Contact, SwarmPeer},
};
use rand::{Rng, RngExt as _};
use slab::Slab;
use std::collections::{BTreeMap, BTreeSet};

/// The shortest interval given out, in thousandths of the longest, as of KeepAlives: announces that began together spread out.
const JITTER_FROM: u64 = 800;

/// Why a member is not added. What is there stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooManySwarms {
    /// The caller is in as many swarms as one peer may be.
    OfCaller {
        /// The limit.
        max: usize,
    },
    /// The registry has no room for more members or swarms.
    InAll,
}

/// Numbers for status pages and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Documents with at least one member.
    pub swarms: usize,
    /// Memberships in all.
    pub members: usize,
    /// Estimated memory, in bytes.
    pub bytes: usize,
    /// Announces answered since the start.
    pub announces: u64,
}

/// The swarms. See the module.
#[derive(Default)]
pub struct Swarms {
    swarms: Slab<(DocumentKey, Swarm)>,
    by_document: BTreeMap<DocumentKey, u32>,
    callers: Callers,
    /// When to check which swarm, by slot.
    checks: BTreeSet<(u64, u32)>,
    members: usize,
    /// Estimated memory of reports.
    report_bytes: usize,
    announces: u64,
}

impl Swarms {
    /// Numbers for status pages and metrics.
    pub fn counts(&self) -> Counts {
        let bytes = self.swarms.len() * SWARM_BYTES + self.members * MEMBER_BYTES + self.report_bytes + self.callers.bytes();
        Counts { swarms: self.swarms.len(), members: self.members, bytes, announces: self.announces }
    }

    /// Joins the caller to the swarm, or refreshes or ends its membership. Names others.
    ///
    /// # Errors
    /// When there is no room for a further membership.
    pub fn handle(
        &mut self,
        caller: &Caller,
        announce: &Announce,
        now_ms: u64,
        rng: &mut impl Rng,
    ) -> Result<AnnounceResponse, TooManySwarms> {
        self.announces = self.announces.saturating_add(1);
        // Whoever leaves names the swarm that it is in.
        let document = if announce.done { announce.document } else { self.meant(announce.document) };
        let at = self.by_document.get(&document).copied();
        if announce.done {
            if let (Some(slot), Some(at)) = (self.callers.slot(&caller.cookie), at) {
                self.remove(slot, at);
            }
            self.leave_unknown(caller, document);
            let left = at.and_then(|at| self.swarms.get(at as usize)).map(|(_, swarm)| swarm);
            let (members, whole) = left.map_or((0, 0), |swarm| (number(swarm.len()), number(swarm.whole())));
            return Ok(AnnounceResponse { members, whole, size: document.size, ..Default::default() });
        }
        let joined = self.join(caller, document, announce, at, now_ms)?;
        let at = joined.at;
        self.leave_unknown(caller, document);
        let Some((_, swarm)) = self.swarms.get_mut(at as usize) else { return Err(TooManySwarms::InAll) };
        let search = joined.member.is_some_and(|(slot, member)| searches(swarm, slot, &member, announce, now_ms));
        let asker = Asker {
            slot: joined.member.map(|(slot, _)| slot),
            name: &caller.name,
            zone: &caller.zone,
            is_whole: announce.is_whole(),
        };
        let want = announce.want.min(WANT_MAX);
        // Who has the whole needs no holders.
        let reports = if announce.is_whole() { 0 } else { reports_named(swarm).min(want) };
        let mut others: Vec<SwarmPeer> = choose(swarm, &self.callers, &asker, want - reports, now_ms, rng)
            .into_iter()
            .filter_map(|slot| Some(named(&self.callers.get(slot)?.caller, swarm.get(slot)?)))
            .collect();
        if reports > 0 {
            let is_new = |holder: &ReportedHolder| {
                *holder.endpoint != *caller.endpoint && !others.iter().any(|other| endpoint(other) == &*holder.endpoint)
            };
            let reported: Vec<_> =
                swarm.reports.choose(reports, is_new, rng).into_iter().map(|holder| reported(holder, document)).collect();
            others.extend(reported);
        }
        let interval_ms = interval_ms(Situation {
            members: swarm.len(),
            memberships: self.members,
            announces: joined.member.map_or(u32::MAX, |(_, member)| member.announces),
            named: others.len(),
            had_nothing: announce.had == 0,
            is_whole: announce.is_whole(),
            whole_known: swarm.whole_known(),
            failed_searches: swarm.search.failures(),
        });
        let (members, whole) = (number(swarm.len()), number(swarm.whole()));
        if let Some((slot, _)) = joined.member {
            let until_ms = now_ms + (INTERVALS_PER_TTL * interval_ms).max(TTL_MIN_MS);
            swarm.extend(slot, until_ms);
            self.check_by(at, until_ms);
        }
        let interval_ms = interval_ms * rng.random_range(JITTER_FROM..=1000) / 1000;
        Ok(AnnounceResponse { others, interval: Some(duration(interval_ms)), search, members, whole, size: document.size })
    }

    /// Ends all memberships of a peer: it left, or its lease is over.
    pub fn leave(&mut self, cookie: &CookieHash) {
        let Some(slot) = self.callers.slot(cookie) else { return };
        let swarms = self.callers.get(slot).map(|known| known.swarms.clone()).unwrap_or_default();
        for at in swarms {
            self.remove(slot, at);
        }
    }

    /// Ends memberships that were not refreshed, of at most `limit` swarms. Says whether more are due.
    pub fn expire(&mut self, now_ms: u64, limit: usize) -> bool {
        for _ in 0..limit {
            let Some((_, at)) = self.checks.first().copied().filter(|(check_ms, _)| *check_ms <= now_ms) else { return false };
            self.checks.pop_first();
            let Some((_, swarm)) = self.swarms.get_mut(at as usize) else { continue };
            swarm.check_ms = 0;
            for slot in swarm.ended(now_ms) {
                self.remove(slot, at);
            }
            let next_ms = self.swarms.get(at as usize).and_then(|(_, swarm)| swarm.next_end_ms());
            if let Some(next_ms) = next_ms {
                self.check_by(at, next_ms.max(now_ms + CHECK_MS));
            }
        }
        true
    }

    /// The document that an announce means: of one without a size, that of the size that most members say.
    fn meant(&self, document: DocumentKey) -> DocumentKey {
        if document.size > 0 {
            return document;
        }
        let of_hash = self.by_document.range(document..=DocumentKey { size: u64::MAX, ..document });
        let sized = of_hash.filter(|(known, _)| known.size > 0);
        sized.max_by_key(|(_, at)| self.len(**at)).map_or(document, |(known, _)| *known)
    }

    /// Who is in the swarm of a document whose size it knows leaves that of those who do not.
    fn leave_unknown(&mut self, caller: &Caller, document: DocumentKey) {
        let unknown = self.by_document.get(&DocumentKey { size: 0, ..document }).copied().filter(|_| document.size > 0);
        if let (Some(slot), Some(at)) = (self.callers.slot(&caller.cookie), unknown) {
            self.remove(slot, at);
        }
    }

    /// Adds or refreshes the member, with what it reports.
    fn join(
        &mut self,
        caller: &Caller,
        document: DocumentKey,
        announce: &Announce,
        at: Option<u32>,
        now_ms: u64,
    ) -> Result<Joined, TooManySwarms> {
        let known = self.callers.slot(&caller.cookie);
        let is_member = known.zip(at).is_some_and(|(slot, at)| self.is_member(slot, at));
        if !is_member {
            if let Some(at) = at.filter(|at| self.len(*at) >= MEMBERS_PER_SWARM_MAX) {
                return Ok(Joined { at, member: None });
            }
            let of_caller = known.and_then(|slot| self.callers.get(slot)).map_or(0, |known| known.swarms.len());
            if of_caller >= SWARMS_PER_PEER_MAX {
                return Err(TooManySwarms::OfCaller { max: SWARMS_PER_PEER_MAX });
            }
            let needed = SWARM_BYTES + MEMBER_BYTES + callers::bytes_of(caller);
            if self.members >= MEMBERS_MAX || self.counts().bytes + needed > BYTES_MAX {
                return Err(TooManySwarms::InAll);
            }
        }
        let at = match at {
            Some(at) => at,
            None => {
                let at = u32::try_from(self.swarms.insert((document, Swarm::default()))).map_err(|_| TooManySwarms::InAll)?;
                self.by_document.insert(document, at);
                at
            }
        };
        let slot = self.callers.update(caller).ok_or(TooManySwarms::InAll)?;
        let has_room = self.counts().bytes < BYTES_MAX;
        let Some((_, swarm)) = self.swarms.get_mut(at as usize) else { return Err(TooManySwarms::InAll) };
        let report = Report {
            had: announce.had,
            is_whole: announce.is_whole(),
            zone: &caller.zone,
            is_dialable: !caller.endpoint.is_empty(),
        };
        let member = swarm.announce(slot, report, now_ms);
        if !is_member {
            self.members += 1;
            self.callers.join(slot, at);
        }
        self.report_bytes -= swarm.reports.bytes();
        swarm.reports.replace(slot, if has_room { &announce.holders } else { &[] });
        self.report_bytes += swarm.reports.bytes();
        Ok(Joined { at, member: Some((slot, member)) })
    }

    fn is_member(&self, slot: u32, at: u32) -> bool {
        self.swarms.get(at as usize).is_some_and(|(_, swarm)| swarm.get(slot).is_some())
    }

    fn len(&self, at: u32) -> usize {
        self.swarms.get(at as usize).map_or(0, |(_, swarm)| swarm.len())
    }

    /// Removes a member, and the swarm with its last one.
    fn remove(&mut self, slot: u32, at: u32) {
        let Some((document, swarm)) = self.swarms.get_mut(at as usize) else { return };
        self.report_bytes -= swarm.reports.bytes();
        let was_member = swarm.remove(slot);
        self.report_bytes += swarm.reports.bytes();
        if was_member {
            self.members -= 1;
            self.callers.leave(slot, at);
        }
        if swarm.len() == 0 {
            self.by_document.remove(document);
            self.checks.remove(&(swarm.check_ms, at));
            self.report_bytes -= swarm.reports.bytes();
            self.swarms.try_remove(at as usize);
        }
    }

    /// Checks a swarm at this time, or earlier.
    fn check_by(&mut self, at: u32, check_ms: u64) {
        let Some((_, swarm)) = self.swarms.get_mut(at as usize) else { return };
        if swarm.check_ms == 0 || check_ms < swarm.check_ms {
            self.checks.remove(&(swarm.check_ms, at));
            swarm.check_ms = check_ms;
            self.checks.insert((check_ms, at));
        }
    }
}

/// Where the caller is now.
struct Joined {
    /// Slot of the swarm.
    at: u32,
    /// The caller's slot, and its membership; `None`: the swarm lists no more members.
    member: Option<(u32, Member)>,
}

/// Places of an answer for reported holders: few where members have the whole.
fn reports_named(swarm: &Swarm) -> usize {
    let most = if swarm.whole_sources().len() < REPORTED_NAMED_MAX { REPORTED_NAMED_MAX } else { REPORTED_NAMED_AMONG_WHOLE };
    swarm.reports.len().min(most)
}

/// Notes how the member's search went, and says whether it is to search.
fn searches(swarm: &mut Swarm, slot: u32, member: &Member, announce: &Announce, now_ms: u64) -> bool {
    if !announce.holders.is_empty() {
        swarm.search.found(slot, now_ms);
    } else if announce.searched {
        swarm.search.found_nobody(slot, now_ms);
    }
    // Known holders of which nothing comes may be invented, or dead.
    let is_starved = now_ms.saturating_sub(member.progressed_ms) >= STARVED_MS;
    let others_wait = swarm.len() > swarm.whole() + 1;
    !member.is_whole && (!swarm.whole_known() || is_starved) && swarm.search.assign(slot, others_wait, now_ms)
}

fn named(caller: &Caller, member: &Member) -> SwarmPeer {
    let (name, endpoint) = (caller.name.as_ref().into(), caller.endpoint.as_ref().into());
    SwarmPeer {
        peer: Some(Contact { id: caller.id.to_field(), name, endpoint }),
        zone: caller.zone.as_ref().into(),
        had: member.had,
        complete: member.is_whole,
        reported: false,
    }
}

fn reported(holder: &ReportedHolder, document: DocumentKey) -> SwarmPeer {
    let id = holder.id.map(p2pdi::id::PeerId::to_field).unwrap_or_default();
    let (name, endpoint) = (holder.name.as_ref().into(), holder.endpoint.as_ref().into());
    SwarmPeer {
        peer: Some(Contact { id, name, endpoint }),
        zone: holder.zone.as_ref().into(),
        had: document.size,
        complete: true,
        reported: true,
    }
}

fn endpoint(peer: &SwarmPeer) -> &str {
    peer.peer.as_ref().map_or("", |contact| &contact.endpoint)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn duration(ms: u64) -> prost_types::Duration {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: i32::try_from(ms % 1000).unwrap_or(0) * 1_000_000 }
}
