//! FNV-1a with 64 bits. It distributes well enough to choose an index, and unlike the standard library's hash it is the
//! same in every worker and every Envoy.

/// Hashes a sequence of bytes.
pub(crate) fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
