package supervisor

import (
	"fmt"
	"net"
	"testing"
)

func TestFreePortsDifferAndLieBelowTheEphemeralRange(t *testing.T) {
	ports, err := freePorts(50)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, port := range ports {
		if port < 20000 || port > 32767 {
			t.Errorf("%d is outside the range", port)
		}
		seen[port] = true
	}
	if len(seen) != 50 {
		t.Errorf("only %d differ", len(seen))
	}
}

func TestATakenPortIsNotGiven(t *testing.T) {
	pair := neighbours(t)
	taken, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", pair[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	ports, err := freePortsFrom(pair[0], pair[1], 1)
	if err != nil || ports[0] != pair[1] {
		t.Errorf("%v %v", ports, err)
	}
	if ports, err := freePortsFrom(pair[0], pair[1], 2); err == nil {
		t.Errorf("%v, of which one is taken", ports)
	}
}

// neighbours finds two free ports side by side.
func neighbours(t *testing.T) [2]int {
	for range 100 {
		ports, err := freePorts(1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := freePortsFrom(ports[0]+1, ports[0]+1, 1); err == nil {
			return [2]int{ports[0], ports[0] + 1}
		}
	}
	t.Fatal("no two free ports side by side")
	return [2]int{}
}
