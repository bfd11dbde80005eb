//! What the driver of a fetch and its planner tell each other.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::transfer::piece_set::PieceSet;
use std::{ops::Range, time::Duration};

/// A holder of the fetch. The driver numbers them; a number is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HolderId(pub u32);

/// A request of the fetch. The planner numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The pieces of a holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Has {
    /// The whole document.
    All,
    /// These.
    Pieces(PieceSet),
}

/// Something that happened to a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A holder can be asked.
    HolderAdded {
        /// Its number.
        holder: HolderId,
        /// It is in this peer's zone.
        near: bool,
        /// What it has.
        has: Has,
        /// It is a member of the swarm that also fetches, or exchanges availability: then this fetch is not its only one.
        in_swarm: bool,
    },
    /// A holder answered something else after this time: no shorter than the delay of its path.
    Delay {
        /// Which holder.
        holder: HolderId,
        /// How long that took.
        delay: Duration,
    },
    /// Whether others are known to fetch the document too, connected or not yet.
    Company(bool),
    /// A holder verified more pieces.
    Gained {
        /// Which holder.
        holder: HolderId,
        /// Which pieces.
        pieces: Vec<usize>,
    },
    /// A holder became whole.
    BecameWhole {
        /// Which holder.
        holder: HolderId,
    },
    /// A holder would like to be asked for these pieces next, in this order. Replaces its earlier list.
    AskFor {
        /// Which holder.
        holder: HolderId,
        /// Which pieces.
        pieces: Vec<usize>,
    },
    /// A holder cannot be asked any more. Its requests have ended.
    HolderRemoved {
        /// Which holder.
        holder: HolderId,
    },
    /// The answer to a request has begun: its header arrived.
    Began {
        /// Which request.
        request: RequestId,
    },
    /// Bytes of a request arrived.
    Arrived {
        /// Which request.
        request: RequestId,
        /// How many bytes.
        bytes: u64,
    },
    /// These pieces are in the partial file and are being checked: none is requested before it is `Verified` or `Lost`.
    Checking {
        /// Which pieces.
        pieces: PieceSet,
    },
    /// A piece is verified, and on disk or on its way there.
    Verified {
        /// Which piece.
        piece: usize,
        /// The request that it arrived with; `None`: it was in the partial file.
        request: Option<RequestId>,
    },
    /// A piece that was verified or checked is not right.
    Lost {
        /// Which piece.
        piece: usize,
    },
    /// A request ended, after its last `Arrived` and `Verified`. Also after [`Action::Cancel`].
    Ended {
        /// Which request.
        request: RequestId,
        /// Why.
        by: EndedBy,
    },
}

/// Why a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// All of its bytes arrived, or it was shortened and its new end is reached.
    Completion,
    /// The planner cancelled it.
    Cancel,
    /// A broken connection, a stall. The holder may be asked again after a pause.
    TransientFault,
    /// The holder says that it is busy or stops. It is asked again after a longer pause.
    Busy,
    /// The holder is busy, and says that it may be asked again after this time.
    BusyFor(Duration),
    /// The holder does not have these pieces (any more), but others perhaps.
    PiecesMissing,
    /// The holder is not asked again: it does not have the document, or it broke the contract.
    FinalFault,
    /// A piece did not match its hash. The holder is not asked again.
    WrongPiece(usize),
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Request a run of pieces from a holder. They arrive in order.
    Request {
        /// Number of the request.
        request: RequestId,
        /// Whom to ask.
        holder: HolderId,
        /// Which pieces.
        pieces: Range<usize>,
        /// Whether the holder begins only when the earlier requests with this flag are sent.
        in_turn: bool,
    },
    /// End a request once all pieces before `end` arrived: the rest is requested elsewhere.
    Shorten {
        /// Which request.
        request: RequestId,
        /// The first piece that is not wanted any more.
        end: usize,
    },
    /// End a request now.
    Cancel {
        /// Which request.
        request: RequestId,
    },
    /// Do not ask a holder any more, and report why. All of its requests are cancelled.
    Drop {
        /// Which holder.
        holder: HolderId,
        /// Why.
        by: EndedBy,
    },
    /// Look for further holders: fewer useful ones than wanted are known.
    Search,
}
