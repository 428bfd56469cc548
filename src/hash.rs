//! FNV-1a, 64 bits: spreads well enough to pick a place, and is the same in every worker and Envoy, which
//! the standard library's hash is not.

/// The hash of some bytes.
pub fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
