package gate

import "container/list"

// queue holds each key once, in the order of arrival. The zero value is empty.
type queue struct {
	order list.List
	at    map[Key]*list.Element
}

// push adds key at the end, or does nothing if the queue holds it.
func (q *queue) push(key Key) {
	if q.at == nil {
		q.at = map[Key]*list.Element{}
	}
	if _, held := q.at[key]; !held {
		q.at[key] = q.order.PushBack(key)
	}
}

// pop removes and returns the first key that skip, if given, does not hold back.
func (q *queue) pop(skip func(Key) bool) (Key, bool) {
	for e := q.order.Front(); e != nil; e = e.Next() {
		key := e.Value.(Key) //nolint:forcetypeassert // push is the only writer
		if skip == nil || !skip(key) {
			q.remove(key)
			return key, true
		}
	}
	return Key{}, false
}

func (q *queue) remove(key Key) {
	if e, held := q.at[key]; held {
		q.order.Remove(e)
		delete(q.at, key)
	}
}
