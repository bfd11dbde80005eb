//! The size of GetRFC's chunks, which both sides keep to.

/// Largest chunk message, in bytes: large enough that its frame costs little, small enough that a slow reader holds little.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;
