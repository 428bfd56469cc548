//! Everything that needs addresses: host calls, and one function of the C library.
//!
//! The host calls of a request are bound here instead of in the SDK, whose bindings trap the VM when the host returns an
//! unexpected status, and allocate two strings for each header.
//!
//! Every call can fail, and then returns `None`, `false` or nothing. Signatures: proxy-wasm ABI 0.2.1.

#![expect(unsafe_code, reason = "the interfaces of the host and of C consist of addresses")]

use core::ptr::null_mut;
use core::slice;

use proxy_wasm::types::{BufferType, MapType};

use crate::memcmp;

const OK: u32 = 0;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        value: *mut *mut u8,
        value_size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(key: *const u8, key_size: usize, value: *const u8, value_size: usize, cas: u32) -> u32;
    fn proxy_get_header_map_pairs(map: u32, pairs: *mut *mut u8, pairs_size: *mut usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        most: usize,
        bytes: *mut *mut u8,
        bytes_size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(buffer: u32, start: usize, size: usize, bytes: *const u8, bytes_size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, value: *mut *mut u8, value_size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
}

/// The bytes that a host call returns in memory that it allocated in this VM.
fn returned(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let (mut start, mut size) = (null_mut(), 0);
    if call(&raw mut start, &raw mut size) != OK || start.is_null() {
        return None;
    }
    // SAFETY: the host got the memory from the SDK's `proxy_on_memory_allocate`, which takes exactly that many bytes
    // from the global allocator and gives up ownership.
    Some(unsafe { Vec::from_raw_parts(start, size, size) })
}

/// Nanoseconds since 1970; the host leaves 0 if it has no clock.
pub fn time() -> u64 {
    let mut time = 0;
    // SAFETY: the address is that of a number that lives through the call.
    unsafe { proxy_get_current_time_nanoseconds(&raw mut time) };
    time
}

/// A value of shared data and its compare-and-set number.
pub fn shared_data(key: &str) -> Option<(Vec<u8>, u32)> {
    let mut cas = 0;
    // SAFETY: all addresses are of values that live through the call.
    let value =
        returned(|value, size| unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), value, size, &raw mut cas) });
    value.map(|value| (value, cas))
}

/// Sets a value of shared data. False if its compare-and-set number has changed; the ABI's number 0 means any.
pub fn set_shared_data(key: &str, value: &[u8], cas: u32) -> bool {
    // SAFETY: the addresses and sizes are those of slices that live through the call.
    unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) == OK }
}

/// A header map, in the form that [`crate::http::headers`] reads.
pub fn header_map(map: MapType) -> Option<Vec<u8>> {
    // SAFETY: the addresses are those that `returned` makes for the call.
    returned(|pairs, size| unsafe { proxy_get_header_map_pairs(map as u32, pairs, size) })
}

/// Sets a header and replaces all of its values.
pub fn set_header(map: MapType, name: &str, value: &str) {
    // SAFETY: the addresses and sizes are those of slices that live through the call.
    unsafe {
        proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len());
    }
}

/// Removes a header.
pub fn remove_header(map: MapType, name: &str) {
    // SAFETY: the address and size are those of a slice that lives through the call.
    unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) };
}

/// The first `most` bytes of a buffer, or all if it has fewer.
pub fn buffer(buffer: BufferType, most: usize) -> Option<Vec<u8>> {
    // SAFETY: the addresses are those that `returned` makes for the call.
    returned(|bytes, size| unsafe { proxy_get_buffer_bytes(buffer as u32, 0, most, bytes, size) })
}

/// Replaces the first `size` bytes of a buffer.
pub fn set_buffer(buffer: BufferType, size: usize, bytes: &[u8]) {
    // SAFETY: the address and size are those of a slice that lives through the call.
    unsafe { proxy_set_buffer_bytes(buffer as u32, 0, size, bytes.as_ptr(), bytes.len()) };
}

/// Reads a property whose path has one element.
pub fn property(path: &str) -> Option<Vec<u8>> {
    // SAFETY: the path's address and size are those of a slice that lives through the call.
    returned(|value, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), value, size) })
}

/// Sets a property whose path has one element.
pub fn set_property(path: &str, value: &[u8]) {
    // SAFETY: the addresses and sizes are those of slices that live through the call.
    unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) };
}

/// Replaces the C library's `memcmp`; see [`memcmp`].
///
/// # Safety
/// Both addresses must be valid for reads of `size` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, size: usize) -> i32 {
    // SAFETY: the caller guarantees it.
    let (one, other) = unsafe { (slice::from_raw_parts(one, size), slice::from_raw_parts(other, size)) };
    memcmp::compare(one, other)
}
