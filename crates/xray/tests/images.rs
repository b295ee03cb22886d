//! PNG files of every kind, sound and broken.

use flate2::Crc;
use flate2::write::ZlibEncoder;
use kinone_core::rng::Stream;
use kinone_xray::Gray;
use kinone_xray::decode::{decode_png, read_png};
use std::io::Write as _;
use std::process::Command;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(body);
    [&(body.len() as u32).to_be_bytes()[..], kind, body, &crc.sum().to_be_bytes()].concat()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn header(width: usize, height: usize, depth: u8, color: u8, interlaced: bool) -> Vec<u8> {
    let sides = [(width as u32).to_be_bytes(), (height as u32).to_be_bytes()].concat();
    chunk(b"IHDR", &[&sides[..], &[depth, color, 0, 0, u8::from(interlaced)]].concat())
}

fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
    [SIGNATURE, &chunks.concat(), &chunk(b"IEND", &[])].concat()
}

/// Rows of whole bytes with filter type 0 before each.
fn plain(width: usize, height: usize, depth: u8, color: u8, rows: &[u8], extra: &[Vec<u8>]) -> Vec<u8> {
    let stride = rows.len() / height;
    let filtered: Vec<u8> = rows.chunks_exact(stride).flat_map(|row| [&[0], row].concat()).collect();
    let head = header(width, height, depth, color, false);
    file(&[head, extra.concat(), chunk(b"IDAT", &deflate(&filtered))])
}

fn noise(count: usize) -> Vec<u8> {
    let stream = Stream::new(3, "png");
    (0..count).map(|k| stream.bits(k as u64) as u8).collect()
}

/// A small sound file.
fn sound() -> Vec<u8> {
    plain(9, 7, 8, 0, &noise(63), &[])
}

fn pixels(file: &[u8]) -> Vec<u8> {
    decode_png(file).unwrap().pixels
}

#[test]
fn gray_of_eight_bits_is_taken_as_it_is_and_alpha_is_ignored() {
    let gray = noise(63);
    assert_eq!(decode_png(&sound()).unwrap(), Gray { width: 9, height: 7, pixels: gray.clone() });
    let with_alpha: Vec<u8> = gray.iter().flat_map(|&v| [v, !v]).collect();
    assert_eq!(pixels(&plain(9, 7, 8, 4, &with_alpha, &[])), gray);
    let rgb: Vec<u8> = gray.iter().flat_map(|&v| [v; 3]).collect();
    assert_eq!(pixels(&plain(9, 7, 8, 2, &rgb, &[])), gray);
    let rgba: Vec<u8> = gray.iter().flat_map(|&v| [v, v, v, v / 2]).collect();
    assert_eq!(pixels(&plain(9, 7, 8, 6, &rgba, &[])), gray);
    let transparent = chunk(b"tRNS", &[0, gray[5]]);
    let gamma = chunk(b"gAMA", &45_455_u32.to_be_bytes());
    assert_eq!(pixels(&plain(9, 7, 8, 0, &gray, &[gamma, transparent])), gray);
}

#[test]
fn colours_become_luma_to_the_nearest() {
    let luma = |&[r, g, b]: &[u8; 3]| {
        let [r, g, b] = [r, g, b].map(u64::from);
        // 0.299, 0.587 and 0.114 in 1/65536; exact halves go up.
        ((19_595 * r + 38_470 * g + 7_471 * b) as f64 / 65_536.0 + 0.5).floor() as u8
    };
    // Every red with every green, so that each weight decides some pixel.
    let many: Vec<[u8; 3]> = (0..=u16::MAX).map(|k| [k as u8, (k >> 8) as u8, (k % 251) as u8]).collect();
    let expected: Vec<u8> = many.iter().map(luma).collect();
    assert_eq!(pixels(&plain(256, 256, 8, 2, many.as_flattened(), &[])), expected);

    let colours: Vec<[u8; 3]> = noise(3 * 64).chunks_exact(3).map(|c| [c[0], c[1], c[2]]).collect();
    let expected: Vec<u8> = colours.iter().map(luma).collect();
    let palette = chunk(b"PLTE", colours.as_flattened());
    let indices: Vec<u8> = (0..64).collect();
    assert_eq!(pixels(&plain(8, 8, 8, 3, &indices, std::slice::from_ref(&palette))), expected);
    let beyond: Vec<u8> = (1..65).collect();
    let error = decode_png(&plain(8, 8, 8, 3, &beyond, &[palette])).unwrap_err();
    assert!(error.contains("colour 64 of a palette of 64"), "{error}");
    // Two bits a pixel, three pixels a row: what fills the byte is none.
    let three = chunk(b"PLTE", colours[..3].as_flattened());
    assert_eq!(pixels(&plain(3, 1, 2, 3, &[0b00_01_10_11], std::slice::from_ref(&three))), expected[..3]);
    assert!(decode_png(&plain(3, 1, 2, 3, &[0b00_11_10_00], &[three])).is_err());
    let wide: Vec<u8> = colours.as_flattened().iter().flat_map(|&v| [v, v]).collect();
    assert_eq!(pixels(&plain(8, 8, 16, 2, &wide, &[])), expected);
}

#[test]
fn other_depths_scale_to_eight_bits() {
    for depth in [1_usize, 2, 4] {
        let top = (1 << depth) - 1;
        let rows = noise(8 * depth);
        let expected: Vec<u8> = rows
            .iter()
            .flat_map(|&byte| (0..8 / depth).map(move |k| byte as usize >> (8 - depth * (k + 1)) & top))
            .map(|v| (v * 255 / top) as u8)
            .collect();
        assert_eq!(pixels(&plain(8, 8, depth as u8, 0, &rows, &[])), expected);
    }
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_be_bytes).collect();
    let nearest = |v: u32| ((2 * 255 * v + 65_535) / (2 * 65_535)) as u8;
    let expected: Vec<u8> = (0..=65_535).map(nearest).collect();
    assert_eq!(pixels(&plain(256, 256, 16, 0, &all, &[])), expected);
    let with_alpha: Vec<u8> = all.chunks_exact(2).flat_map(|v| [v[0], v[1], 7, 9]).collect();
    assert_eq!(pixels(&plain(256, 256, 16, 4, &with_alpha, &[])), expected);
}

#[test]
fn an_interlaced_file_equals_its_plain_twin() {
    // First column, first row, step of columns, step of rows of the seven passes (PNG specification, 8.2).
    const PASSES: [[usize; 4]; 7] =
        [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];
    for (width, height) in [(1, 1), (3, 2), (9, 7), (16, 16), (33, 19)] {
        for (color, channels) in [(0, 1), (6, 4)] {
            let values = noise(width * height * channels);
            let mut passes = Vec::new();
            for [x0, y0, dx, dy] in PASSES {
                for y in (y0..height).step_by(dy).filter(|_| x0 < width) {
                    passes.push(0);
                    for x in (x0..width).step_by(dx) {
                        let at = (y * width + x) * channels;
                        passes.extend_from_slice(&values[at..at + channels]);
                    }
                }
            }
            let head = header(width, height, 8, color, true);
            let interlaced = file(&[head, chunk(b"IDAT", &deflate(&passes))]);
            assert_eq!(decode_png(&interlaced), decode_png(&plain(width, height, 8, color, &values, &[])));
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let whole = sound();
    for length in 0..whole.len() {
        assert!(decode_png(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
    }
    assert!(decode_png(&[&whole[..], b"trailing bytes"].concat()).is_ok());
}

#[test]
fn a_wrong_bit_in_any_checksum_is_an_error() {
    let extra =
        [chunk(b"gAMA", &45_455_u32.to_be_bytes()), chunk(b"tEXt", b"Title\0x"), chunk(b"tIME", &[7; 7])];
    let whole = plain(9, 7, 8, 0, &noise(63), &extra);
    assert!(decode_png(&whole).is_ok());
    let mut at = SIGNATURE.len();
    let mut chunks = 0;
    while at < whole.len() {
        let length = u32::from_be_bytes(whole[at..at + 4].try_into().unwrap()) as usize;
        let mut broken = whole.clone();
        broken[at + 8 + length] ^= 1;
        assert!(decode_png(&broken).is_err(), "{}", String::from_utf8_lossy(&whole[at + 4..at + 8]));
        at += 12 + length;
        chunks += 1;
    }
    assert_eq!(chunks, 6);
    // The zlib stream's own checksum, in a chunk whose checksum is right.
    let mut stream =
        deflate(&noise(8 * 7).chunks(7).flat_map(|row| [&[0], row].concat()).collect::<Vec<_>>());
    let of = |stream: &[u8]| decode_png(&file(&[header(7, 8, 8, 0, false), chunk(b"IDAT", stream)]));
    assert!(of(&stream).is_ok());
    *stream.last_mut().unwrap() ^= 1;
    assert!(of(&stream).is_err());
}

#[test]
fn impossible_sizes_are_refused_before_memory_is_taken() {
    let data = chunk(b"IDAT", &deflate(&[0; 64]));
    let refused = |width, height| {
        [(8, 0), (16, 6)].map(|(depth, color)| {
            decode_png(&file(&[header(width, height, depth, color, false), data.clone()])).unwrap_err()
        })
    };
    for (width, height) in
        [(4097, 4097), (16_385, 1), (1, 16_385), (16_384, 1025), (0x7fff_ffff, 0x7fff_ffff)]
    {
        for error in refused(width, height) {
            assert!(error.starts_with(&format!("{width}x{height} pixels; at most 16384")), "{error}");
        }
    }
    for error in refused(0, 5).into_iter().chain(refused(5, 0)) {
        assert!(error.starts_with("damaged"), "{error}");
    }
    // The largest that are allowed get as far as their data, of which there are too few.
    for (width, height) in [(4096, 4096), (16_384, 1024)] {
        let error = decode_png(&file(&[header(width, height, 8, 0, false), data.clone()])).unwrap_err();
        assert!(error.starts_with("damaged"), "{error}");
    }
    let of = |rows: usize| file(&[header(4, 4, 8, 0, false), chunk(b"IDAT", &deflate(&vec![0; rows * 5]))]);
    assert!(decode_png(&of(3)).unwrap_err().starts_with("damaged"));
    // Behind the 4×4 image wait 50 MB of zeros: what the declared size does not need is not unpacked.
    let bomb = decode_png(&of(10_000_000)).unwrap();
    assert_eq!((bomb.width, bomb.height, bomb.pixels), (4, 4, vec![0; 16]));
}

#[test]
fn a_file_of_another_kind_is_named() {
    let mut dicom = vec![0; 140];
    dicom[128..132].copy_from_slice(b"DICM");
    let kinds: [(&[u8], &str); 8] = [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "JPEG"),
        (b"BM\x36\0\0\0", "BMP"),
        (&dicom, "DICOM"),
        (b"\n<!DOCTYPE html><title>404", "HTML"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\x89PN", "first bytes"),
        (b"hello", "unknown"),
    ];
    for (bytes, name) in kinds {
        let error = decode_png(bytes).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn a_path_that_is_no_sound_file_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("folder.png")).unwrap();
    assert!(Command::new("mkfifo").arg(path("fifo.png")).status().unwrap().success());
    std::os::unix::fs::symlink("nowhere", path("dangling.png")).unwrap();
    std::os::unix::fs::symlink("loop.png", path("loop.png")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", path("device.png")).unwrap();
    std::fs::write(path("short.png"), &sound()[..40]).unwrap();
    std::fs::write(path("sound.png"), sound()).unwrap();
    for name in ["folder", "fifo", "dangling", "loop", "device", "short", "absent"] {
        let file = path(&format!("{name}.png"));
        let error = read_png(&file).unwrap_err().to_string();
        assert!(error.contains(file.to_str().unwrap()) && !error.contains('\n'), "{error}");
    }
    assert!(read_png(&path("sound.png")).is_ok());
}

#[test]
fn ten_thousand_mutated_files_give_an_image_or_an_error() {
    let palette = chunk(b"PLTE", &noise(3 * 200));
    let originals = [
        sound(),
        plain(12, 5, 16, 6, &noise(12 * 5 * 8), &[]),
        plain(8, 8, 8, 3, &noise(64).iter().map(|v| v % 200).collect::<Vec<_>>(), &[palette]),
        file(&[header(6, 6, 8, 0, true), chunk(b"IDAT", &deflate(&[0; 60]))]),
    ];
    let (mut images, mut errors) = (0, 0);
    for round in 0..10_000_u64 {
        let draw = Stream::new(11, "mutation").at(0, round);
        let mut bytes = originals[round as usize % originals.len()].clone();
        for k in 0..=u64::from(draw.below(0, 4)) {
            let at = draw.below(10 + 3 * k, bytes.len() as u32) as usize;
            match draw.below(11 + 3 * k, 4) {
                0 => bytes[at] ^= 1 << draw.below(12 + 3 * k, 8),
                1 => bytes[at] = draw.bits(12 + 3 * k) as u8,
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, draw.bits(12 + 3 * k) as u8),
            }
        }
        // Half of the files get right checksums again, so that the mutation reaches the decoder.
        if round % 2 == 0 {
            mend(&mut bytes);
        }
        match decode_png(&bytes) {
            Ok(gray) => {
                assert_eq!(gray.pixels.len(), gray.width * gray.height);
                images += 1;
            }
            Err(_) => errors += 1,
        }
    }
    assert!(images > 0 && errors > 5_000, "{images} images, {errors} errors");
}

/// Writes the right checksum behind every chunk that is whole.
fn mend(bytes: &mut [u8]) {
    let mut at = SIGNATURE.len();
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let end = at + 8 + length;
        if end + 4 > bytes.len() {
            break;
        }
        let mut crc = Crc::new();
        crc.update(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&crc.sum().to_be_bytes());
        at = end + 4;
    }
}
