//! Runs every fuzz target on its corpus: the seeds, and the inputs that have found a defect.

use std::path::Path;

use sessiongate::fuzzing;

#[track_caller]
fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut replayed = 0;
    for seed in std::fs::read_dir(&folder).unwrap() {
        check(&std::fs::read(seed.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "{} is empty", folder.display());
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target), fuzzing::$target);
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let known = [$(stringify!($target)),*];
            let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
            for target in std::fs::read_dir(targets).unwrap() {
                let path = target.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap();
                assert!(known.contains(&name), "{name}");
            }
        }
    };
}

targets! { configuration cookie forwarded host mapping request response route row session_cookie set_cookie }
