//! Memory of chunks that were written, kept by the allocator for those that follow.

use std::{hint::black_box, sync::Once};

/// glibc keeps up to twice that of freed memory, and maps blocks from that size on.
const KEPT: usize = 4 * 1024 * 1024;

/// Lets the allocator keep what a fetch frees. By itself glibc gives it back to the system after each few chunks, which are of 256 KiB: at
/// 1 GiB/s the next ones cost 40,000 to 150,000 page faults a second, a tenth of the time. A block of that size that is freed raises the
/// thresholds (mallopt(3), `M_MMAP_THRESHOLD`: they adjust themselves), as it does in any program that frees one; other allocators do
/// nothing.
pub(super) fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(KEPT))));
}
