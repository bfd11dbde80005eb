//! The limits of the tracker.

/// Swarms that one peer may be in. A peer that mirrors a folder of large files is in some hundreds; small files are not announced.
pub(super) const SWARMS_PER_PEER_MAX: usize = 1_000;
/// Members of one swarm. Twenty random ones of these are as good as twenty of more; a further peer is told of them and is not listed.
pub(super) const MEMBERS_PER_SWARM_MAX: usize = 100_000;
/// Memberships in all, some 150 MB: each of a million peers fetches one document.
pub(super) const MEMBERS_MAX: usize = 1_000_000;
/// Memory of everything, by the estimates below: half of what the records of two million peers take.
pub(super) const BYTES_MAX: usize = 512 << 20;
/// Estimated memory of a swarm without members: four tables, two lists, and its place in the maps.
pub(super) const SWARM_BYTES: usize = 500;
/// Estimated memory of a member in one swarm: an entry in three or four hash tables and one set.
pub(super) const MEMBER_BYTES: usize = 150;
/// Estimated memory of a peer with members, without its strings.
pub(super) const CALLER_BYTES: usize = 200;
/// Estimated memory of a reported holder, without its strings.
pub(super) const REPORT_BYTES: usize = 120;

/// Zones of one swarm that are kept apart; members of further ones count as without a zone. A cluster has three, a company some dozens.
pub(super) const ZONES_MAX: usize = 64;

/// Most members named in one answer, and the default: a fetcher wants some ten useful ones.
pub const WANT_MAX: usize = 20;
/// Most holders that one announce may report.
pub const HOLDERS_MAX: usize = 8;
/// Reported holders that a swarm keeps: enough to begin with, and whoever has the document announces itself from then on.
pub(super) const REPORTS_MAX: usize = 16;
/// Reporters kept of one reported holder: a second one makes it credible.
pub(super) const REPORTERS_MAX: usize = 4;
/// Most reported holders named in one answer, fewer than members: they may be invented.
pub(super) const REPORTED_NAMED_MAX: usize = 6;
/// Most of them where at least [`REPORTED_NAMED_MAX`] members have the whole.
pub(super) const REPORTED_NAMED_AMONG_WHOLE: usize = 2;

/// Members looked at for each one named: the least loaded third is named.
pub(super) const SAMPLE_FACTOR: usize = 3;
/// How long a member is a newcomer, in milliseconds: it has given nothing to anybody yet, so its load counts as none.
pub(super) const NEWCOMER_MS: u64 = 10_000;
/// Newcomers kept of each swarm, of which some are in every answer, so that they become known soon.
pub(super) const NEWCOMERS_KEPT: usize = 16;

/// Interval of announces once a member knows others: mainline BitTorrent trackers use 30 minutes and leave the rest to peer exchange;
/// here the registry is near, and a member that died should be forgotten soon.
pub(super) const INTERVAL_MS: u64 = 15_000;
/// Longest interval that a large swarm leads to. Its members know each other by peer exchange.
pub(super) const INTERVAL_MAX_MS: u64 = 60_000;
/// First interval of a member that has nothing while nobody is known who has the whole: another member is searching, which mostly takes less.
/// It doubles from announce to announce, up to [`INTERVAL_QUICK_MS`].
pub(super) const INTERVAL_WAITING_MS: u64 = 200;
/// First interval of a member that was told of few others; it doubles from announce to announce. The longest one of members that wait for a
/// search; it doubles with each that finds nobody.
pub(super) const INTERVAL_QUICK_MS: u64 = 2_000;
/// Second announce of a newcomer that was told of enough others: later ones have come by then.
pub(super) const INTERVAL_FIRST_MS: u64 = 6_000;
/// Others that are enough for a fetch.
pub(super) const OTHERS_ENOUGH: usize = 10;
/// Announces per second that one swarm causes; with more members the interval grows up to [`INTERVAL_MAX_MS`].
pub(super) const SWARM_ANNOUNCES_PER_SECOND: u64 = 50;
/// Announces per second that a registry asks for at most, as many as KeepAlives: a tenth of what one core answers.
pub(super) const ANNOUNCES_PER_SECOND: u64 = 5_000;
/// Intervals that a membership lasts: two announces may be lost.
pub(super) const INTERVALS_PER_TTL: u64 = 3;
/// Shortest membership, in milliseconds: a client may be busy for longer than three quick intervals.
pub(super) const TTL_MIN_MS: u64 = 30_000;

/// How long one member searches alone, in milliseconds: its first few questions are answered by then. After that another one does.
pub(super) const SEARCH_MS: u64 = 4_000;
/// Pause after a search that found nobody, in milliseconds; it doubles with each further one.
pub(super) const SEARCH_PAUSE_MS: u64 = 2_000;
/// Longest such pause.
pub(super) const SEARCH_PAUSE_MAX_MS: u64 = 60_000;
/// Pause after a search that found somebody.
pub(super) const SEARCH_AGAIN_MS: u64 = 10_000;
/// A member that got nothing for this long needs other holders than the known ones, in milliseconds: these may be invented or dead.
pub(super) const STARVED_MS: u64 = 30_000;

/// Shortest time between two checks of one swarm for members that are over, in milliseconds: a check reads all its members.
pub(super) const CHECK_MS: u64 = 2_000;

const _: () = assert!(REPORTED_NAMED_MAX < WANT_MAX / 2, "members come first");
const _: () = assert!(TTL_MIN_MS > INTERVALS_PER_TTL * INTERVAL_FIRST_MS);
const _: () = assert!(MEMBERS_MAX * MEMBER_BYTES < BYTES_MAX);
