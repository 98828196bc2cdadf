//! zlib decompression with a limit on the output.

use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

/// Maximum size of an inflated payload. Without it, a row of 400 KB could inflate to 400 MB.
pub(crate) const LIMIT: usize = 1024 * 1024;

/// Inflates a zlib stream and verifies its checksum. Returns `None` if it is invalid or inflates to more than
/// [`LIMIT`].
pub(crate) fn zlib(bytes: &[u8]) -> Option<Vec<u8>> {
    decompress_to_vec_zlib_with_limit(bytes, LIMIT).ok()
}

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::compress_to_vec_zlib;

    use super::*;

    #[test]
    fn streams_larger_than_the_limit_are_rejected() {
        for (length, fits) in [(0, true), (1, true), (LIMIT, true), (LIMIT + 1, false), (16 * LIMIT, false)] {
            let plain = vec![b' '; length];
            let inflated = zlib(&compress_to_vec_zlib(&plain, 6));
            assert_eq!(inflated.is_some(), fits, "{length}");
            assert!(inflated.is_none_or(|inflated| inflated == plain));
        }
    }

    #[test]
    fn truncated_and_corrupt_streams_are_rejected() {
        let whole = compress_to_vec_zlib(b"{\"a\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}", 6);
        for length in 0..whole.len() {
            assert_eq!(zlib(&whole[..length]), None, "{length} bytes");
        }
        for bit in 0..whole.len() * 8 {
            let mut broken = whole.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            // Some bits of the header do not affect the content; all others break the checksum.
            assert!(zlib(&broken).is_none() || bit < 16, "bit {bit}");
        }
    }
}
