//! Bodies that are small on the wire and large once unpacked. Made from pieces, because packing hundreds of MiB takes longer than a test may.

use std::io::Write as _;

use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compress, Compression, Crc, FlushCompress};

const PIECE: usize = 1 << 20;
const BEGINNING: &[u8] = b"{\"data\":{\"data\":{\"value\":\"";
const END: &[u8] = b"\"}}}";

/// `BEGINNING`, that many MiB of one letter, and `END`, under these content codings, the innermost first.
pub(super) fn packed(mebibytes: usize, layers: &[&str]) -> Vec<u8> {
    let (first, others) = layers.split_first().expect("a layer");
    assert_eq!(*first, "gzip", "the innermost layer is gzip");
    others.iter().fold(gzip(mebibytes), |body, layer| pack(&body, layer))
}

fn pack(body: &[u8], layer: &str) -> Vec<u8> {
    let best = Compression::best();
    let (mut gzip, mut zlib) = (GzEncoder::new(Vec::new(), best), ZlibEncoder::new(Vec::new(), best));
    let written = match layer {
        "gzip" => gzip.write_all(body).and_then(|()| gzip.finish()),
        // By its name raw, by RFC 9110 in the envelope of zlib.
        "deflate" => zlib.write_all(body).and_then(|()| zlib.finish()),
        other => panic!("no coding {other}"),
    };
    written.expect("memory takes everything")
}

/// One member of RFC 1952. Each piece ends at a byte and refers to nothing before it, so the same bytes can be put there again.
fn gzip(mebibytes: usize) -> Vec<u8> {
    let piece = vec![b'a'; PIECE];
    let (packed_piece, mut piece_crc, mut crc) = (flushed(&piece), Crc::new(), Crc::new());
    piece_crc.update(&piece);
    crc.update(BEGINNING);
    let mut body = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    body.extend(flushed(BEGINNING));
    for _ in 0..mebibytes {
        body.extend(&packed_piece);
        crc.combine(&piece_crc);
    }
    body.extend(flushed(END));
    crc.update(END);
    // An empty last block.
    body.extend([3, 0]);
    body.extend(crc.sum().to_le_bytes());
    body.extend(crc.amount().to_le_bytes());
    body
}

fn flushed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(bytes.len() + 1024);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(bytes, &mut packed, FlushCompress::Full).expect("deflate takes everything");
    assert_eq!(compress.total_in(), bytes.len() as u64, "all of it was packed");
    packed
}
