//! Every elementwise row, for every dtype it takes, over shapes, broadcasts, views and special values. The cases follow
//! from the table of rows: a new row is tested with nothing edited here.

use raphson_check::case::{Case, Input};
use raphson_check::draw::{Values, specials};
use raphson_check::suite::Suite;
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::op::elementwise::{Accept, ROWS, Row, apply};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;

/// Shapes of the operands: operand i takes shape i, counted round and round.
const SHAPES: &[&[&[usize]]] = &[
    &[&[]],
    &[&[1]],
    &[&[7]],
    &[&[3, 5]],
    &[&[2, 1, 3]],
    &[&[0]],
    &[&[4, 0, 2]],
    &[&[1, 1]],
    &[&[3, 131]],
    // broadcasts
    &[&[3, 5], &[5], &[1, 5]],
    &[&[3, 1], &[1, 4], &[]],
    &[&[], &[4], &[4]],
    &[&[2, 3, 1], &[3, 4], &[2, 1, 4]],
    &[&[2, 0, 3], &[1, 3], &[3]],
];

/// How an operand of the given shape is seen.
type View = (&'static str, &'static [usize], fn(&Value) -> Result<Value>);

/// Views with a shape of [3, 5] each.
const VIEWS: &[View] = &[
    ("permuted", &[5, 3], |x| x.permute(&[1, 0])),
    ("sliced", &[7, 11], |x| x.slice(&[1, 0], &[7, 10], &[2, 2])),
    ("flipped", &[3, 5], |x| x.flip(&[0, 1])),
    ("expanded", &[3, 1], |x| x.expand(&Shape::from([3, 5]))),
    ("reshaped", &[5, 3], |x| {
        x.permute(&[1, 0])?.flip(&[1])?.reshape(&Shape::from([15]))?.reshape(&Shape::from([3, 5]))
    }),
];

fn dtype_of(row: &Row, operand: usize, dtype: DType) -> DType {
    if row.accept == Accept::Select && operand == 0 { DType::Bool } else { dtype }
}

fn input(row: &Row, operand: usize, dtype: DType, shape: &[usize]) -> Input {
    let (low, high) = row.domain[operand];
    Input::within(shape, dtype_of(row, operand, dtype), low, high)
}

fn case(row: &'static Row, what: String, inputs: Vec<Input>, view: fn(&Value) -> Result<Value>) -> Case {
    let build = move |x: &[Value]| -> Result<Value> {
        let x = x.iter().map(view).collect::<Result<Vec<_>>>()?;
        apply(row, &x.iter().collect::<Vec<_>>())
    };
    let mut case = Case::new(row.name, what, inputs, build);
    case.elementwise = true;
    case
}

fn shapes(row: &'static Row, dtype: DType) -> impl Iterator<Item = Case> {
    let patterns = SHAPES.iter().filter(|pattern| row.arity > 1 || pattern.len() == 1);
    patterns.map(move |pattern| {
        let inputs = (0..row.arity).map(|i| input(row, i, dtype, pattern[i % pattern.len()])).collect();
        let case = case(row, format!("{pattern:?}"), inputs, |x| Ok(x.clone()));
        // A long operand says nothing more about derivatives than a short one.
        if pattern[0].iter().product::<usize>() > 100 { case.values_only() } else { case }
    })
}

fn views(row: &'static Row, dtype: DType) -> impl Iterator<Item = Case> {
    VIEWS.iter().map(move |(name, shape, view)| {
        let inputs = (0..row.arity).map(|i| input(row, i, dtype, shape)).collect();
        case(row, (*name).to_string(), inputs, *view)
    })
}

/// Every combination of special values.
fn special_values(row: &'static Row, dtype: DType) -> Case {
    let lists: Vec<&[f64]> = (0..row.arity).map(|i| specials(dtype_of(row, i, dtype))).collect();
    let n: usize = lists.iter().map(|list| list.len()).product();
    let mut stride = n;
    let inputs = lists.iter().enumerate().map(|(i, list)| {
        stride /= list.len();
        let stride = stride;
        let values = (0..n).map(|at| list[at / stride % list.len()]).collect();
        Input { shape: [n].into(), dtype: dtype_of(row, i, dtype), values: Values::Given(values) }
    });
    case(row, "special values".to_string(), inputs.collect(), |x| Ok(x.clone())).values_only()
}

#[test]
fn every_row_holds_on_every_dtype() {
    let mut suite = Suite::on_all().unwrap();
    for row in ROWS {
        for dtype in DType::ALL.into_iter().filter(|&dtype| row.accept.takes(dtype)) {
            shapes(row, dtype).chain(views(row, dtype)).for_each(|case| suite.check(&case));
            suite.check(&special_values(row, dtype));
        }
    }
    suite.finish();
}

#[test]
fn every_row_states_itself() {
    for (position, row) in ROWS.iter().enumerate() {
        assert_eq!(row.domain.len(), row.arity, "{}: one interval for each operand", row.name);
        assert!(row.domain.iter().all(|(low, high)| low < high), "{}: an empty interval", row.name);
        assert!(!row.name.is_empty() && row.doc.ends_with('.'), "{}: a name, and a sentence", row.name);
        assert!(ROWS[..position].iter().all(|other| other.name != row.name), "{}: two rows of one name", row.name);
        assert!(DType::ALL.into_iter().any(|dtype| row.accept.takes(dtype)), "{}: takes no dtype", row.name);
    }
}
