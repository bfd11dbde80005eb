//! Which peers a driver knows, exchanges availability with, and offers to its planner.

use super::{Driver, ExchangeEnd};
use crate::{
    holders::{announcer::CONNECTIONS_WANTED, candidate::Candidate, source::Source},
    transfer::{
        fetch::{
            fault_log,
            holder_table::{Index, Known},
        },
        plan::{EndedBy, Event, Has, HolderId, MemberId},
        swarm::{
            dial::{dial, is_no_holder, is_unknown_method},
            news::MemberNews,
            update::Member,
        },
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Most peers dialled at the same time of which is only known that a member named them: they may be made up, and a dial that nobody answers
/// takes seconds.
const NAMED_DIALS_MAX: usize = CONNECTIONS_WANTED / 2;

/// Dials that fail in a row before a peer is not dialled any more.
const FAILED_DIALS_MAX: u32 = 3;

/// How often dropped holders are asked again while nobody else has what is missing: one that restarts is back within seconds.
const RETRY_DROPPED: Duration = Duration::from_secs(5);
/// The same while others have it.
const RETRY_DROPPED_SELDOM: Duration = Duration::from_secs(30);

impl Driver<'_> {
    /// Adds a peer that may be asked; `is_whole`: somebody says that it has the whole document.
    pub(super) fn add(&mut self, source: &Source, is_whole: bool, zone: &str) {
        let Some(index) = self.holders.entry(source, Known::Found) else { return };
        let near = self.is_near(zone, source);
        let holder = self.holders.get_mut(index);
        if holder.is_banned {
            return;
        }
        holder.is_whole |= is_whole;
        if is_whole && holder.dropped.is_some() {
            // Said to be back.
            holder.dropped = None;
            holder.failed_dials = 0;
        }
        if is_whole && holder.planned.is_none() {
            self.plan(index, near, Has::All, false);
        }
        self.dial(index);
    }

    /// The tracker or a search names these.
    pub(super) fn found(&mut self, found: Vec<Candidate>) {
        for candidate in found {
            let known = self.holders.find(&candidate.source).map(|index| self.holders.get(index));
            if known.is_some_and(|holder| holder.dropped.is_some()) {
                // The announcer did not know it yet when it was dropped.
                self.setting.swarm.useless(candidate.source);
                continue;
            }
            // A member says itself what it has.
            let is_member = known.is_some_and(|holder| holder.member.is_some());
            if !is_member && Some(&candidate.source.endpoint) != self.setting.swarm.endpoint().as_ref() {
                self.add(&candidate.source, candidate.complete, &candidate.zone);
            }
        }
    }

    /// A member names another one. It is dialled, and nothing is requested from it before it says itself what it has.
    fn named(&mut self, source: &Source) {
        if let Some(index) = self.holders.entry(source, Known::Named) {
            self.dial(index);
        }
    }

    /// Asks those again, now and then, that failed: who was stopped or restarted comes back.
    pub(super) fn retry_dropped(&mut self, now: Instant) {
        let every = if self.planner.useful_holders() == 0 { RETRY_DROPPED } else { RETRY_DROPPED_SELDOM };
        if now.saturating_duration_since(self.retried) < every {
            return;
        }
        self.retried = now;
        for index in self.holders.indexes() {
            let holder = self.holders.get_mut(index);
            if holder.planned.is_some() || holder.is_banned {
                continue;
            }
            if holder.dropped.is_some() {
                (holder.is_on_trial, holder.failed_dials) = (true, 0);
                if holder.planned_whole {
                    let source = holder.source.clone();
                    self.add(&source, true, "");
                    continue;
                }
            }
            self.dial(index);
        }
    }

    /// Whether a holder is in this peer's zone, or on its machine.
    fn is_near(&self, zone: &str, source: &Source) -> bool {
        let is_here = || {
            let own = self.setting.swarm.endpoint();
            source.addresses().iter().any(|address| own.as_ref().is_some_and(|own| own.host() == address.host()))
        };
        (!zone.is_empty() && zone == self.setting.swarm.zone()) || is_here()
    }

    fn plan(&mut self, index: Index, near: bool, has: Has, in_swarm: bool) {
        self.unplan(index);
        let holder = self.holders.number(index);
        self.holders.get_mut(index).planned_whole = has == Has::All;
        self.planner.handle(Event::HolderAdded { holder, near, has, in_swarm }, Instant::now());
    }

    fn unplan(&mut self, index: Index) {
        let Some(holder) = self.holders.get_mut(index).planned.take() else { return };
        let now = Instant::now();
        // Their streams end by themselves: what those verified until then still counts.
        for (request, running) in self.requests.iter().filter(|(_, running)| running.holder == holder) {
            running.control.cancel();
            self.planner.handle(Event::Ended { request: *request, by: EndedBy::Cancel }, now);
        }
        self.planner.handle(Event::HolderRemoved { holder }, now);
    }

    /// Exchanges availability with a peer, unless that is done already or enough others are.
    fn dial(&mut self, index: Index) {
        let (connected, named) = self.holders.connected();
        let holder = self.holders.get_mut(index);
        let enough = match holder.known {
            Known::Found => connected - named >= CONNECTIONS_WANTED,
            Known::Named => connected >= CONNECTIONS_WANTED || named >= NAMED_DIALS_MAX,
        };
        if enough || holder.is_dialled || holder.member.is_some() || holder.is_banned || holder.failed_dials >= FAILED_DIALS_MAX {
            return;
        }
        holder.is_dialled = true;
        let (swarm, channels) = (Arc::clone(&self.setting.swarm), self.setting.channels.clone());
        let source = holder.source.clone();
        self.dials.spawn(async move { (index, Box::pin(dial(swarm, channels, source)).await) });
    }

    pub(super) fn dial_ended(&mut self, index: Index, ended: ExchangeEnd) {
        let holder = self.holders.get_mut(index);
        holder.is_dialled = false;
        let Err(error) = ended else { return };
        tracing::debug!(source = %holder.source, %error, "an exchange of availability ended");
        if error.is_violation() {
            holder.error = Some(error.to_string());
            self.ban(index, error.to_string());
        } else if is_unknown_method(&error) {
            // It serves whole documents only: what it has does not change.
            holder.failed_dials = FAILED_DIALS_MAX;
        } else if is_no_holder(&error) {
            holder.failed_dials = FAILED_DIALS_MAX;
            holder.error.get_or_insert_with(|| error.to_string());
        } else {
            holder.failed_dials += 1;
        }
        self.dial_waiting();
    }

    /// Dials those that were named while enough others were being dialled.
    fn dial_waiting(&mut self) {
        for index in self.holders.indexes() {
            let holder = self.holders.get(index);
            if holder.known == Known::Named && holder.failed_dials == 0 {
                self.dial(index);
            }
        }
    }

    pub(super) fn member(&mut self, news: MemberNews) {
        let now = Instant::now();
        match news {
            MemberNews::Joined { id, member, has } => self.joined(id, &member, has),
            MemberNews::Gained(id, pieces) => {
                if let Some(holder) = self.planned(id) {
                    self.planner.handle(Event::Gained { holder, pieces }, now);
                }
            }
            MemberNews::AskFor(id, pieces) => {
                if let Some(holder) = self.planned(id) {
                    tracing::debug!(?holder, ?pieces, "a holder asks for requests");
                    self.planner.handle(Event::AskFor { holder, pieces }, now);
                }
            }
            MemberNews::Left(id) => {
                let Some(index) = self.holders.by_member(id) else { return };
                if self.holders.get(index).is_banned {
                    // Its id is kept, to know it if it comes from elsewhere.
                    return;
                }
                self.holders.get_mut(index).member = None;
                // A peer that stops finishes what it sends: requests under way show whether it is still there.
                if !self.is_used(self.holders.get(index)) {
                    self.unplan(index);
                }
                if self.holders.get(index).is_whole {
                    // Its requests show whether it is still there.
                    let source = self.holders.get(index).source.clone();
                    self.add(&source, true, "");
                } else {
                    self.dial(index);
                }
            }
            MemberNews::Named(named) => named.iter().for_each(|source| self.named(source)),
        }
    }

    fn planned(&self, id: MemberId) -> Option<HolderId> {
        self.holders.get(self.holders.by_member(id)?).planned
    }

    fn joined(&mut self, id: MemberId, member: &Member, has: Has) {
        if self.holders.is_banned(member.id) {
            self.setting.swarm.expel(id);
            return;
        }
        // One that serves nothing only receives.
        let Some(source) = member.source() else { return };
        let Some(index) = self.holders.at(&source).or_else(|| self.holders.entry(&source, Known::Found)) else { return };
        if self.holders.get(index).is_banned {
            self.setting.swarm.expel(id);
            return;
        }
        let near = self.is_near(&member.zone, &source);
        let holder = self.holders.get_mut(index);
        holder.member = Some((id, member.id));
        holder.known = Known::Found;
        holder.failed_dials = 0;
        holder.dropped = None;
        holder.is_on_trial = false;
        self.leads.useful(&holder.source);
        let is_whole = has == Has::All;
        holder.is_whole = is_whole;
        if holder.planned.is_none() || holder.planned_whole != is_whole {
            self.plan(index, near, has, !is_whole);
        }
        self.dial_waiting();
    }

    pub(super) fn drop_holder(&mut self, id: HolderId, by: EndedBy) {
        let Some(index) = self.holders.by_planned(id) else { return };
        let why = self.holders.get(index).error.clone().unwrap_or_else(|| "not useful".to_owned());
        match by {
            EndedBy::WrongPiece(_) | EndedBy::FinalFault => self.ban(index, why),
            _ => {
                self.unplan(index);
                let holder = self.holders.get_mut(index);
                holder.dropped = Some(why);
                holder.is_whole = false;
                self.leads.useless(&holder.source);
                self.setting.swarm.useless(holder.source.clone());
            }
        }
    }

    /// Never asks a peer again for this document.
    pub(super) fn ban(&mut self, index: Index, why: String) {
        fault_log::banned(&self.holders.get(index).source, &why);
        self.unplan(index);
        let holder = self.holders.get_mut(index);
        holder.is_banned = true;
        self.leads.useless(&holder.source);
        self.setting.swarm.useless(holder.source.clone());
        holder.dropped = Some(why);
        if let Some((member, _)) = holder.member {
            self.setting.swarm.expel(member);
        }
    }
}
