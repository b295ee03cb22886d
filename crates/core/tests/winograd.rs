//! Winograd's convolution is the convolution: its value and its gradients are those of `conv2d`, to what
//! rounding can do in f64, which both compute for themselves.

use kinone_core::operator::{Operator, Output, Saved, View};
use kinone_core::ops::{Conv2d, Conv2dWinograd};
use kinone_core::rng::Stream;
use kinone_core::rounded::Rounded;
use kinone_core::shape::Shape;
use kinone_kernels::conv::winograd::Tile;

type Number = Rounded<53>;

/// The value and both gradients.
fn run(
    operator: &impl Operator,
    shapes: &[Shape; 2],
    inputs: &[Vec<Number>; 2],
    dy: &[Number],
) -> [Vec<Number>; 3] {
    fn saves<O: Operator>(_: &O) -> &'static str {
        O::DOC.name
    }
    let views = [View::new(&shapes[0], &inputs[0]), View::new(&shapes[1], &inputs[1])];
    let value = operator.shape(&[&shapes[0], &shapes[1]]).unwrap().value;
    let mut y = vec![Number::exact(f64::NAN); value.size()];
    operator.forward(&views, &mut Output { shape: &value, value: &mut y, auxiliaries: Vec::new() });
    let (mut dx, mut dw) =
        (vec![Number::exact(f64::NAN); inputs[0].len()], vec![Number::exact(f64::NAN); inputs[1].len()]);
    let saved = Saved::new(saves(operator), shapes, views.map(Some).to_vec(), None, Vec::new());
    operator.vjp(&saved, View::new(&value, dy), &mut [Some(&mut dx), Some(&mut dw)]);
    [y, dx, dw]
}

#[test]
fn winograds_convolution_is_the_convolution() {
    let cases = [
        (1, 1, (1, 1), 1, (2, 2)),
        (2, 3, (7, 10), 4, (1, 1)),
        (5, 2, (9, 3), 3, (0, 2)),
        (9, 1, (36, 35), 2, (2, 0)),
    ];
    for (index, (n, c, (h, v), o, padding)) in cases.into_iter().enumerate() {
        let shapes = [Shape::from([n, c, h, v]), Shape::from([o, c, 3, 3])];
        let draw = |stream: u64, len: usize| -> Vec<Number> {
            let stream = Stream::new(1, "winograd").at(index as u32, stream);
            (0..len as u64).map(|k| Number::exact(f64::from(stream.uniform(k)) * 2.0 - 1.0)).collect()
        };
        let inputs = [draw(0, shapes[0].size()), draw(1, shapes[1].size())];
        let plain = Conv2d { padding, ..Conv2d::default() };
        let size = plain.shape(&[&shapes[0], &shapes[1]]).unwrap().value.size();
        let dy = draw(2, size);
        let wanted = run(&plain, &shapes, &inputs, &dy);
        for tile in [Tile::Two, Tile::Four] {
            let found = run(&Conv2dWinograd { tile, padding }, &shapes, &inputs, &dy);
            for (found, wanted) in found.iter().zip(&wanted) {
                for (found, wanted) in found.iter().zip(wanted) {
                    let (apart, bound) = ((found.value - wanted.value).abs(), found.bound + wanted.bound);
                    assert!(apart <= bound, "{tile:?}, case {index}: {found:?}, not {wanted:?}");
                }
            }
        }
    }
}
