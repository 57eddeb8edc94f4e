from tunnel.yamux.budget import Budget


def test_so_many_a_second_and_no_more():
    budget = Budget(3)
    assert [budget.spend(100.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.spend(100.9)


def test_a_new_second_is_a_new_budget():
    budget = Budget(1)
    assert budget.spend(100.0)
    assert not budget.spend(100.5)
    assert budget.spend(101.0)


def test_a_quiet_hour_saves_nothing_up():
    budget = Budget(2)
    budget.spend(0.0)
    assert [budget.spend(3600.0) for _ in range(3)] == [True, True, False]
