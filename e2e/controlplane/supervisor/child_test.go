package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// crashed is a stand-in that has ended with the words of its trouble.
func crashed(t *testing.T, log, words string) *child {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(pidFolder, t.TempDir())
	t.Setenv(trouble, "etcd="+words)
	started, err := startChild(binary, "etcd", log, nil, make(chan struct{}, 1))
	if err != nil {
		t.Fatal(err)
	}
	<-started.done
	return started
}

func TestAServerIsJudgedByItsOwnWordsNotByEarlierOnes(t *testing.T) {
	log := filepath.Join(t.TempDir(), "etcd.log")
	first, second := crashed(t, log, portAlwaysGone), crashed(t, log, crash)
	if !first.foundPortTaken() || second.foundPortTaken() {
		t.Errorf("%q and then %q", first.output(), second.output())
	}
	text, err := os.ReadFile(log)
	if err != nil || strings.Count(string(text), "\n") != 2 {
		t.Errorf("the log lost something: %q %v", text, err)
	}
}

func TestAServerThatCannotBeStartedIsNamed(t *testing.T) {
	_, err := startChild("/does/not/exist", "etcd", filepath.Join(t.TempDir(), "etcd.log"), nil, make(chan struct{}, 1))
	if err == nil || !strings.Contains(err.Error(), "etcd: ") {
		t.Errorf("%v", err)
	}
}

func TestTheLastWordsAreTheLastLines(t *testing.T) {
	cases := []struct{ text, want string }{
		{"", ""},
		{"a\n", "a"},
		{"a\nb\nc\n", "b\nc"},
		{"a\nb\nc", "b\nc"},
	}
	for _, c := range cases {
		if got := lastLines(c.text, 2); got != c.want {
			t.Errorf("%q: %q", c.text, got)
		}
	}
}
