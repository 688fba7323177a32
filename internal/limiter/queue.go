package limiter

import "slices"

// queue holds keys. Namespaces take turns; within one, keys come in the order of arrival. The zero value is empty.
type queue struct {
	namespaces []string // in the order of their turns
	rows       map[string][]Key
}

// push adds a key at the end of its namespace.
func (q *queue) push(key Key) {
	if q.rows == nil {
		q.rows = map[string][]Key{}
	}
	row := q.rows[key.Namespace]
	if len(row) == 0 {
		q.namespaces = append(q.namespaces, key.Namespace)
	}
	q.rows[key.Namespace] = append(row, key)
}

// pop removes and returns the first key that may go, from the namespace whose turn it is.
func (q *queue) pop(may func(Key) bool) (Key, bool) {
	for i, namespace := range q.namespaces {
		j := slices.IndexFunc(q.rows[namespace], may)
		if j < 0 {
			continue
		}
		key := q.rows[namespace][j]
		q.namespaces = append(slices.Delete(q.namespaces, i, i+1), namespace)
		q.cut(namespace, j)
		return key, true
	}
	return Key{}, false
}

func (q *queue) remove(key Key) {
	if j := slices.Index(q.rows[key.Namespace], key); j >= 0 {
		q.cut(key.Namespace, j)
	}
}

func (q *queue) cut(namespace string, position int) {
	row := q.rows[namespace]
	if position == 0 {
		row = row[1:] // in constant time, which a long row needs
	} else {
		row = slices.Delete(row, position, position+1)
	}
	if q.rows[namespace] = row; len(row) == 0 {
		delete(q.rows, namespace)
		q.namespaces = slices.DeleteFunc(q.namespaces, func(n string) bool { return n == namespace })
	}
}
