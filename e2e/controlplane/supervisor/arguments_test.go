package supervisor

import (
	"slices"
	"strings"
	"testing"
)

var testFolder = &folder{path: "/f", adminToken: "admin-token", controllerManagerToken: "manager-token"}

func TestOptionsBecomeFlagsOfTheAPIServer(t *testing.T) {
	cases := []struct {
		name    string
		options Options
		has     []string
		hasNot  []string
	}{
		{
			name:   "the bare minimum",
			has:    []string{"--secure-port=25000", "--bind-address=127.0.0.1", "--etcd-servers=http://e", "--service-account-issuer=https://127.0.0.1:25000"},
			hasNot: []string{"--audit-log-path", "--emulated-version", "--min-request-timeout"},
		},
		{
			name:    "audit is written before the answer, into one file",
			options: Options{Audit: true},
			has:     []string{"--audit-policy-file=/f/audit-policy.yaml", "--audit-log-path=/f/audit.log", "--audit-log-mode=blocking", "--audit-log-maxsize=102400"},
		},
		{
			name:    "an older version, short watches",
			options: Options{EmulatedVersion: "1.33", MinRequestTimeout: 7},
			has:     []string{"--emulated-version=1.33", "--min-request-timeout=7"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			arguments := apiserverArguments(c.options, testFolder, "http://e", 25000)
			for _, flag := range c.has {
				if !slices.Contains(arguments, flag) {
					t.Errorf("%s is missing in %q", flag, arguments)
				}
			}
			for _, flag := range c.hasNot {
				if strings.Contains(strings.Join(arguments, " "), flag) {
					t.Errorf("%s was not asked for: %q", flag, arguments)
				}
			}
		})
	}
}

func TestTheCallersOwnFlagsComeLastAndWin(t *testing.T) {
	options := Options{Audit: true, MinRequestTimeout: 5, EmulatedVersion: "1.34", APIServerArguments: []string{"--v=2", "--secure-port=1"}}
	arguments := apiserverArguments(options, testFolder, "http://e", 25000)
	if last := arguments[len(arguments)-2:]; !slices.Equal(last, options.APIServerArguments) {
		t.Errorf("last are %q", last)
	}
}

func TestTheControllerManagerEmulatesTheSameVersion(t *testing.T) {
	arguments := controllerManagerArguments(Options{EmulatedVersion: "1.33"}, testFolder, 1)
	if !slices.Contains(arguments, "--emulated-version=1.33") {
		t.Errorf("%q", arguments)
	}
}

func TestWhoSignsCertificatesIsWhoseCertificatesAreBelieved(t *testing.T) {
	server := apiserverArguments(Options{}, testFolder, "http://e", 1)
	if !slices.Contains(server, "--client-ca-file=/f/client-ca.crt") {
		t.Errorf("%q", server)
	}
	manager := controllerManagerArguments(Options{}, testFolder, 1)
	for _, flag := range []string{"--cluster-signing-cert-file=/f/client-ca.crt", "--cluster-signing-key-file=/f/client-ca.key"} {
		if !slices.Contains(manager, flag) {
			t.Errorf("%s is missing in %q", flag, manager)
		}
	}
}

func TestEveryControllerCarriesItsSuffix(t *testing.T) {
	for _, argument := range controllerManagerArguments(Options{}, testFolder, 1) {
		list, found := strings.CutPrefix(argument, "--controllers=")
		if !found {
			continue
		}
		names := strings.Split(list, ",")
		if len(names) != len(controllers) {
			t.Errorf("%d names for %d controllers", len(names), len(controllers))
		}
		for _, name := range names {
			if !strings.HasSuffix(name, "-controller") || strings.Count(name, "-controller") != 1 {
				t.Errorf("%q", name)
			}
		}
		return
	}
	t.Error("no --controllers")
}

func TestNoTokenIsAnArgument(t *testing.T) {
	all := slices.Concat(
		etcdArguments(testFolder, "http://c", "http://p"),
		apiserverArguments(Options{Audit: true}, testFolder, "http://e", 1),
		controllerManagerArguments(Options{}, testFolder, 2),
	)
	for _, argument := range all {
		if strings.Contains(argument, testFolder.adminToken) || strings.Contains(argument, testFolder.controllerManagerToken) {
			t.Errorf("%q", argument)
		}
	}
}
