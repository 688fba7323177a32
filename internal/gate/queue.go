package gate

import "container/list"

// queue holds each key once. Namespaces take turns; within one, keys come in the order of arrival. The zero value is empty.
type queue struct {
	turns      list.List // of namespaces that have a key here, each a *row, by the numbers of their turns
	namespaces map[string]*list.Element
	at         map[Key]*list.Element // in the row of its namespace
}

// row is who waits of one namespace.
type row struct {
	namespace string
	turn      uint64 // tells which of the fronts of two queues comes first
	arrivals  list.List
}

// arrival is a key, and a number that tells which of two of one namespace came first.
type arrival struct {
	key    Key
	number uint64
}

// push adds key at the end of its namespace's row, or does nothing if the queue holds it. Numbers grow. A namespace that comes anew
// has its turn after all who came before.
func (q *queue) push(key Key, number uint64) {
	if q.at == nil {
		q.at, q.namespaces = map[Key]*list.Element{}, map[string]*list.Element{}
	}
	if q.has(key) {
		return
	}
	turn := q.namespaces[key.Namespace]
	if turn == nil {
		turn = q.turns.PushBack(&row{namespace: key.Namespace, turn: number})
		q.namespaces[key.Namespace] = turn
	}
	q.at[key] = rowOf(turn).arrivals.PushBack(arrival{key, number})
}

// pop removes and returns the first key of the namespace whose turn it is. Its next turn is that of the number.
func (q *queue) pop(number uint64) (Key, bool) {
	first, _, ok := q.front()
	if !ok {
		return Key{}, false
	}
	q.pass(first.key.Namespace, number)
	q.remove(first.key)
	return first.key, true
}

// putBack makes key, which was popped, the first again.
func (q *queue) putBack(key Key) {
	q.push(key, 0)
	turn := q.namespaces[key.Namespace]
	q.turns.MoveToFront(turn)
	rowOf(turn).arrivals.MoveToFront(q.at[key])
}

// pass makes the number that of a namespace's next turn.
func (q *queue) pass(namespace string, number uint64) {
	if turn := q.namespaces[namespace]; turn != nil {
		rowOf(turn).turn = number
		q.turns.MoveToBack(turn)
	}
}

// front returns the arrival that pop would return, and its namespace's turn.
func (q *queue) front() (first arrival, turn uint64, ok bool) {
	e := q.turns.Front()
	if e == nil {
		return arrival{}, 0, false
	}
	r := rowOf(e)
	return r.arrivals.Front().Value.(arrival), r.turn, true //nolint:forcetypeassert // push is the only writer, and no row is empty
}

func (q *queue) has(key Key) bool {
	_, held := q.at[key]
	return held
}

func (q *queue) remove(key Key) {
	e, held := q.at[key]
	if !held {
		return
	}
	turn := q.namespaces[key.Namespace]
	rowOf(turn).arrivals.Remove(e)
	delete(q.at, key)
	if rowOf(turn).arrivals.Len() == 0 {
		q.turns.Remove(turn)
		delete(q.namespaces, key.Namespace)
	}
}

func rowOf(turn *list.Element) *row {
	return turn.Value.(*row) //nolint:forcetypeassert // push is the only writer
}
