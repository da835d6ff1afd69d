//! The cheapest flow, by successive shortest paths.

use std::collections::VecDeque;

/// A graph of arcs with capacities and costs.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// An arc and its reverse are neighbours.
    arcs: Vec<Arc>,
    from: Vec<Vec<usize>>,
}

#[derive(Clone, Copy, Debug)]
struct Arc {
    to: usize,
    capacity: i64,
    cost: i64,
}

impl Graph {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            arcs: Vec::new(),
            from: vec![Vec::new(); nodes],
        }
    }

    /// An arc. There must be no cycle of negative cost.
    pub(crate) fn arc(&mut self, from: usize, to: usize, capacity: i64, cost: i64) {
        for (from, to, capacity, cost) in [(from, to, capacity, cost), (to, from, 0, -cost)] {
            if let Some(arcs) = self.from.get_mut(from) {
                arcs.push(self.arcs.len());
                self.arcs.push(Arc { to, capacity, cost });
            }
        }
    }

    /// The cost of the cheapest of the greatest flows.
    pub(crate) fn cheapest(&mut self, source: usize, sink: usize) -> i64 {
        let mut total = 0;
        while let Some((cost, path)) = self.shortest(source, sink) {
            let capacities = path.iter().filter_map(|arc| self.arcs.get(*arc));
            let flow = capacities.map(|arc| arc.capacity).min().unwrap_or(0);
            for arc in path {
                for (arc, more) in [(arc, -flow), (arc ^ 1, flow)] {
                    if let Some(arc) = self.arcs.get_mut(arc) {
                        arc.capacity += more;
                    }
                }
            }
            total += cost * flow;
        }
        total
    }

    /// The cheapest path with room, by Bellman and Ford with a queue.
    fn shortest(&self, source: usize, sink: usize) -> Option<(i64, Vec<usize>)> {
        let mut cost: Vec<Option<i64>> = vec![None; self.from.len()];
        let mut came: Vec<Option<usize>> = vec![None; self.from.len()];
        let mut queued = vec![false; self.from.len()];
        let mut queue = VecDeque::from([source]);
        *cost.get_mut(source)? = Some(0);
        while let Some(node) = queue.pop_front() {
            *queued.get_mut(node)? = false;
            let so_far = (*cost.get(node)?)?;
            for index in self.from.get(node)? {
                let arc = self.arcs.get(*index)?;
                let there = cost.get_mut(arc.to)?;
                let through = so_far + arc.cost;
                if arc.capacity == 0 || there.is_some_and(|there| there <= through) {
                    continue;
                }
                *there = Some(through);
                *came.get_mut(arc.to)? = Some(*index);
                let queued = queued.get_mut(arc.to)?;
                if !*queued {
                    *queued = true;
                    queue.push_back(arc.to);
                }
            }
        }
        let total = (*cost.get(sink)?)?;
        let (mut path, mut node) = (Vec::new(), sink);
        while node != source {
            let arc = (*came.get(node)?)?;
            path.push(arc);
            node = self.arcs.get(arc ^ 1)?.to;
        }
        Some((total, path))
    }
}

#[cfg(test)]
mod tests {
    use super::Graph;

    #[test]
    fn the_dear_way_is_taken_only_where_the_cheap_one_is_full() {
        let mut graph = Graph::new(4);
        graph.arc(0, 1, 2, 0);
        graph.arc(0, 2, 2, 1);
        graph.arc(1, 3, 1, 0);
        graph.arc(1, 2, 1, 0);
        graph.arc(2, 3, 2, 3);
        // One free, one by 1-2 for 3, one by 2 for 4.
        assert_eq!(graph.cheapest(0, 3), 7);
    }
}
