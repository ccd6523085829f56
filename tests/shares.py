"""Laws whose cases are many: which share of them runs by default, another one every day, and the rest with `-m slow`.

Of a function with more than `MOST` cases, or one that is named in `EVERY`, every s-th case runs by default, s a prime,
so that each axis of a matrix of cases is met. The shares of `EVERY` were chosen by measured CPU time: about half a
second a function is left; 1 stands for a function that runs whole. Of seeds (`tests/seeds.py`) as many as are stated
run.

Which of the cases is the turn's business: the number of the day, so that s days see all of them. A run prints its turn;
`--turn N` takes the same cases again, and `-m slow --turn N` those that it left out.
"""

import datetime
import math

# A function with more cases runs on a share of them.
MOST = 24


def turn_of_today() -> int:
    """Return the number of the day, in UTC: workers and machines take the same cases."""
    return datetime.datetime.now(datetime.UTC).date().toordinal()


def stride(name: str, cases: int) -> int:
    """Return every how many-th case of a test function runs: as stated, and so that `MOST` are left; a prime.

    One always runs, such as that which somebody asks for.
    """
    if EVERY.get(name) == 1:
        return 1
    every = max(EVERY.get(name, 1), -(-cases // MOST))
    while any(every % divisor == 0 for divisor in range(2, math.isqrt(every) + 1)):
        every += 1
    return min(every, cases)


def runs(number: int, every: int, turn: int) -> bool:
    """Return whether a case, by its number, is among every so many-th in a turn."""
    return number % every == turn % every


def window(number: int, default: int, count: int, turn: int) -> bool:
    """Return whether a seed, by its number of `count`, is among the `default` neighbours of a turn."""
    windows = -(-count // default)
    # The last window is filled up from the one before it.
    start = min(turn % windows * default, count - default)
    return start <= number < start + default


# By test function: every how many-th case runs by default.
EVERY = {
    "test_a_competition_network_agrees_with_onnxruntime": 13,
    "test_a_competition_network_in_double_agrees_with_onnxruntime_or_the_reference": 13,
    "test_a_decomposed_program_has_the_values_of_the_module": 7,
    "test_a_file_that_asks_for_too_much_is_refused_by_what_it_asks_for": 7,
    "test_a_hostile_archive_is_refused_at_once": 5,
    "test_a_large_real_margin_is_never_called_a_tie": 3,
    "test_a_module_is_read_with_its_values": 2,
    "test_a_radius_past_the_exact_one_is_refused": 3,
    "test_a_search_goes_on_behind_a_point_that_is_unsafe_by_rounding_only": 2,
    "test_a_search_with_targets_is_content_with_nothing_else": 3,
    "test_a_target_counts_that_class_only": 7,
    "test_a_twin_has_the_answers_of_the_network": 2,
    "test_a_worker_answers_as_its_solver_does": 3,
    "test_a_write_that_somebody_else_sees_is_refused_by_name": 5,
    "test_a_zero_radius_finds_the_centre_and_a_missing_domain_does_no_harm": 13,
    "test_an_archive_with_more_than_plain_data_is_refused_and_runs_nothing": 5,
    "test_an_attack_declares_whether_it_differentiates_and_counts_what_it_asks": 5,
    "test_an_attacked_input_is_never_refuted_in_more_dimensions": 2,
    "test_an_open_input_says_in_its_record_what_its_method_says": 3,
    "test_bends_and_turns_are_where_the_row_says": 5,
    "test_both_dialects_of_a_file_read_as_the_same_network": 13,
    "test_bounds_and_boxes_hold_at_every_point_of_random_graphs": 3,
    "test_bounds_hold_where_numbers_under_and_overflow": 3,
    "test_boxes_are_those_of_the_graph": 2,
    "test_brackets_close_to_the_gap_around_the_radius_of_a_grid": 5,
    "test_contraction_grids_and_rows_with_binaries_agree": 13,
    "test_counts_add_up_and_no_certificate_is_contradicted_by_random_points": 3,
    "test_curves_stay_within_the_declared_gap_which_falls_with_the_segments": 3,
    "test_damaged_witnesses_are_noticed_and_searched_again": 11,
    "test_definitions_have_the_values_of_networks": 2,
    "test_every_answer_is_that_of_brute_force": 5,
    "test_every_attack_finds_the_optimum_of_a_linear_network": 5,
    "test_every_figure_of_a_summary_is_computed_again": 3,
    "test_every_path_that_a_document_names_exists": 1,
    "test_every_relative_link_leads_somewhere": 1,
    "test_every_row_holds_at_every_point_of_the_box": 29,
    "test_every_value_of_the_op_fits_the_rows": 19,
    "test_executions_lie_within_the_error": 3,
    "test_extreme_weights_keep_the_exact_range_inside": 13,
    "test_gradients_are_those_of_the_tied_dense_layer": 2,
    "test_highs_agrees_with_brute_force_and_our_search": 5,
    "test_infinite_and_huge_ends_claim_nothing_false": 13,
    "test_infinite_and_huge_ends_give_neither_nan_nor_a_box_that_is_too_small": 11,
    "test_interval_contains_evaluate_at_points_and_corners": 5,
    "test_interval_contains_the_exact_range_and_is_tight": 23,
    "test_linear_networks_are_solved": 3,
    "test_lines_are_near_the_best_ones_in_the_middle": 2,
    "test_lines_hold_at_their_worst_points": 11,
    "test_margins_lie_below_every_sampled_margin_and_slopes_only_help": 3,
    "test_nested_boxes_have_one_pattern_and_their_rows_hold": 5,
    "test_networks_of_curves_have_a_bound_below_their_grid_and_within_their_gaps": 2,
    "test_networks_of_hinges_have_the_minimum_of_their_patterns": 3,
    "test_networks_with_max_pools_have_the_minimum_of_their_patterns": 5,
    "test_no_answer_is_contradicted_by_a_dense_grid": 5,
    "test_no_attack_fails_and_none_loses_an_input_that_is_unsafe_from_the_start": 7,
    "test_no_bound_of_a_network_of_curves_is_violated": 3,
    "test_no_counterexample_lies_within_the_radius": 3,
    "test_no_method_contradicts_an_attack_in_any_norm": 3,
    "test_no_radius_reaches_beyond_a_witness_that_is_there": 2,
    "test_nonsense_is_stopped_never_an_answer": 7,
    "test_other_centres_winners_and_domains_are_never_proved_falsely": 5,
    "test_other_numbers_of_leaves_and_boxes_cannot_prove_what_is_false": 3,
    "test_our_search_decides_max_pools_that_are_written_as_relus": 3,
    "test_projections_are_inside_idempotent_and_not_expansive": 5,
    "test_proposals_lie_in_a_box_with_bounds_for_each_coordinate": 11,
    "test_proposals_lie_in_the_ball_and_the_reported_mask_is_true": 23,
    "test_ranges_contain_the_exact_ones_and_are_tight": 5,
    "test_results_do_not_depend_on_the_grouping_of_inputs": 13,
    "test_rounding_alone_is_no_disagreement": 3,
    "test_scores_order_units_as_their_exact_outputs_do": 5,
    "test_strided_tensors_keep_half_the_trusted_error": 3,
    "test_subnormal_slopes_on_wide_boxes_keep_the_law": 3,
    "test_the_ensemble_is_at_least_as_strong_as_every_other_attack": 3,
    "test_the_function_below_an_affine_op_is_the_op_up_to_rounding": 5,
    "test_the_law_holds_for_extreme_weights": 7,
    "test_the_law_holds_for_parts_of_the_output": 11,
    "test_the_law_holds_for_rows_of_all_sorts": 31,
    "test_the_radius_of_an_input_does_not_depend_on_the_unit_of_the_outputs": 3,
    "test_the_rational_value_is_that_of_fractions_and_lies_in_the_interval": 2,
    "test_value_and_derivative_keep_half_of_what_is_trusted": 5,
    "test_vectorised_functions_keep_half_the_trusted_error": 5,
    "test_weights_of_every_architecture_are_taken_from_a_file": 2,
    "test_what_an_input_costs_stays_within_the_stated_budget": 3,
    "test_what_was_not_altered_holds": 3,
    "test_where_true_gradients_fail_on_an_mwd_network_pseudogradients_go_on": 3,
    "test_witnesses_that_are_gone_or_damaged_are_refused": 3,
}
