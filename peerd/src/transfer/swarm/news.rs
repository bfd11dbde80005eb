//! What is new for a member or for the fetch, and the cursors that say what each of them knows already.

use super::update::Member;
use crate::{
    holders::{candidate::Candidate, source::Source},
    transfer::plan::{Has, MemberId},
};
use std::collections::BTreeMap;

/// What a member was told so far.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) gained: usize,
    pub(super) complete: bool,
    pub(super) offer: u64,
    /// The first member that was not named yet.
    pub(super) members: MemberId,
}

/// News for one member.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) gained: Vec<usize>,
    pub(super) complete: bool,
    pub(super) ask_for: Option<Vec<usize>>,
    pub(super) peers: Vec<Candidate>,
}

/// What the fetch knows of the members so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(super) members: BTreeMap<MemberId, (usize, u64)>,
    pub(super) named: u64,
}

/// News for the fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberNews {
    /// A member joined.
    Joined {
        /// Its number.
        id: MemberId,
        /// Who it is.
        member: Member,
        /// What it has.
        has: Has,
    },
    /// It verified more pieces.
    Gained(MemberId, Vec<usize>),
    /// It would like to be asked for these.
    AskFor(MemberId, Vec<usize>),
    /// It left, or its stream broke.
    Left(MemberId),
    /// Others that members named: nobody has met them yet.
    Named(Vec<Source>),
}
