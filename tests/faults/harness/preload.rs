//! The library that is loaded before the program, `preload.c`: its clock, its threads, its allocator.

use super::place::Place;
use super::program::{Ended, is_here};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The library, or why there is none.
pub(crate) fn library() -> Result<&'static Path, &'static str> {
    static LIBRARY: OnceLock<Result<(PathBuf, Place), &'static str>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        if !is_here("cc") {
            return Err("there is no C compiler for the library to preload");
        }
        let place = Place::new();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/harness/preload.c");
        let mut command = place.tool("cc");
        command.args(["-shared", "-fPIC", "-O1", "-o", "preload.so"]).arg(source).args(["-ldl", "-lpthread"]);
        let ended = Ended::of(&mut command);
        if !ended.status.success() {
            println!("{ended}");
            return Err("the library to preload cannot be compiled here (it wants the GNU C library)");
        }
        Ok((place.path("preload.so"), place))
    });
    library.as_ref().map(|(path, _)| path.as_path()).map_err(|why| *why)
}
